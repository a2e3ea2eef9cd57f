"""A real process is killed in the middle of writing, wherever it happens to be; the next one goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import fsmux
from fsmux.files.root import Root
from tests.files.test_sink import CHUNK, begin, fill

if TYPE_CHECKING:
    from fsmux.files.sink import Sink

CHUNKS = 40

CHILD = """
import sys, zlib
from fsmux.files.root import Root
from fsmux.files.opening import open_sink
from fsmux.records import Identity
top, chunk, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
data = bytes(range(256)) * (chunk * count // 256)
tag = zlib.crc32(data).to_bytes(16, "big")
with Root.open(top) as root:
    sink = open_sink(root, (b"file",), Identity(len(data), 1600000000123456789, tag), 0o640, chunk, owner=b"me")
    for index in range(count):
        if sink.manifest.holds(index):
            continue
        crc = sink.write((memoryview(data)[index * chunk : (index + 1) * chunk],), index * chunk)
        sink.received(index, crc)
        sink.flush_records()
        print(index, flush=True)
        if index % 7 == 3:
            sink.checkpoint()
    sink.commit()
"""


def _held(sink: Sink) -> set[int]:
    return set(sink.manifest.indices())


def test_what_was_reported_before_a_kill_is_never_asked_for_again(top: Path) -> None:
    data = bytes(range(256)) * (CHUNK * CHUNKS // 256)
    environment = {**os.environ, "PYTHONPATH": str(Path(fsmux.__file__).parents[1])}
    reported: set[int] = set()
    for kill_after in (0, 1, 4, 5, 9):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(top), str(CHUNK), str(CHUNKS)], stdout=subprocess.PIPE, env=environment
        ) as child:
            assert child.stdout is not None
            for line, _ in zip(child.stdout, range(kill_after + 1), strict=False):
                assert int(line) not in reported, "an acknowledged chunk was written again"
                reported.add(int(line))
            child.send_signal(signal.SIGKILL)
            reported |= {int(line) for line in child.stdout if line.endswith(b"\n")}
        if (top / "file").exists():
            break
        with Root.open(top) as root:
            sink = begin(root, data)
            assert reported <= _held(sink)
            sink.close()
    with Root.open(top) as root:
        sink = begin(root, data)
        assert not reported & set(fill(sink, data)) or (top / "file").exists()
        sink.commit()
    assert zlib.crc32((top / "file").read_bytes()) == zlib.crc32(data)
    assert os.listdir(top) == ["file"]
