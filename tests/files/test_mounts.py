"""File systems mounted below the root, in a mount namespace of a child's own where that is allowed."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fsmux

CHILD = """
import ctypes, os, sys
from fsmux.files.root import Root
from fsmux.files.opening import open_sink
from fsmux.records import Identity

libc = ctypes.CDLL(None, use_errno=True)

def mount(source, target, kind, flags):
    if libc.mount(source, os.fsencode(target), kind, flags, None):
        raise OSError(ctypes.get_errno(), "mount")

if libc.unshare(0x00020000):
    sys.exit(77)
mount(b"none", "/", None, 0x4000 | 0x40000)  # private, recursively
top = sys.argv[1]
for name in ("plain", "tmpfs", "bound"):
    os.mkdir(f"{top}/{name}")
mount(b"none", f"{top}/tmpfs", b"tmpfs", 0)
mount(os.fsencode(f"{top}/plain"), f"{top}/bound", None, 0x1000)
os.makedirs(f"{top}/tmpfs/deep")

with Root.open(top) as root:
    for where in ((b"plain",), (b"tmpfs",), (b"tmpfs", b"deep"), (b"tmpfs", b"new"), (b"bound",), (b"bound", b"new")):
        for data in (b"small", bytes(200_000)):
            parts = (*where, b"file%d" % len(data))
            sink = open_sink(root, parts, Identity(len(data), 1, b""), 0o644, 65536)
            home = top if where[0] == b"plain" else f"{top}/{where[0].decode()}"
            assert os.path.exists(f"{home}/.fsmux"), where
            for index in range(sink.manifest.map.count):
                extent = sink.manifest.map.extent(index)
                sink.received(index, sink.write((memoryview(data)[extent.offset : extent.end],), extent.offset))
            assert sink.commit()
            with open(os.path.join(top, *(part.decode() for part in parts)), "rb") as file:
                assert file.read() == data
    for home in (top, f"{top}/tmpfs", f"{top}/bound"):
        assert ".fsmux" not in os.listdir(home)
print("done")
"""


@pytest.mark.skipif(os.geteuid() != 0 or not hasattr(ctypes.CDLL(None), "unshare"), reason="needs root to mount")
def test_each_mount_has_unfinished_files_of_its_own(top: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(fsmux.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(top)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode == 77:
        pytest.skip("this machine allows no mount namespaces")
    assert done.stdout == "done\n", done.stderr
