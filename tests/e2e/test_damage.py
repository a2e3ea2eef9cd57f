"""A link that damages what it carries, so that TCP does not notice: every byte arrives, by the command itself.

Theory: two words of a packet are exchanged, which leaves its checksum as it was.  Such packets are among thousands of
good ones, in both directions, whatever they carry: bytes of files or messages.  It takes root, because the link is
between two network namespaces.  ``ROUGH_ROUNDS`` says how many links are made (``make torture``).
"""

from __future__ import annotations

import random
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

from benchmarks.harness import random_file
from benchmarks.link import ADDRESSES, link, why_not
from benchmarks.processes import FSMUX, Process, Server, environment

from .kit import MIB, Url, finish, inventory, wait_until_tidy
from .test_rough import ROUNDS, make_files

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.link import Link

PORT: Final = 9000
RATE: Final = 200e6
RTT: Final = 0.002
DAMAGE: Final = 0.0005
"""Of all packets: some in each large file, and so far apart that no chunk is met three times, which would end it."""

SIZE: Final = 10 * MIB + 12_345
TREE: Final = (100, 3_000, 20_000, 300_000)
FILES: Final = 30


def served_at(place: Link, served: Path, port_file: Path) -> Server:
    words = (
        *FSMUX, "serve", served, "--write", "--listen", f"{ADDRESSES[0]}:{PORT}", "--plaintext", "-q",
        "--port-file", port_file,
    )  # fmt: skip
    return Server(place.at(0, words), port_file, environment=environment())


@pytest.mark.parametrize("seed", range(1, ROUNDS + 1))
def test_a_link_that_damages_packets(seed: int, served: Path, there: Path, tmp_path: Path) -> None:
    if reason := why_not():
        pytest.skip(f"a link of its own: {reason}")
    for top in (there, served):
        random_file(top / "file", SIZE)
        make_files(top / "tree", random.Random(seed).choices(TREE, k=FILES))
    remote = Url(f"{ADDRESSES[0]}:{PORT}")
    with ExitStack() as stack:
        try:
            place = stack.enter_context(link(RTT, RATE, damage=DAMAGE, seed=seed))
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"a link of its own cannot be made here: {error}")
        stack.enter_context(served_at(place, served, tmp_path / "port"))
        for words in (
            (there / "file", remote("got")),
            (f"{there / 'tree'}/", remote("got-tree")),
            (remote("file"), there / "got"),
            (remote("tree/"), there / "got-tree"),
        ):
            command = (*FSMUX, "transfer", "--json", "--chunk-size", "64KiB", "--timeout", "3", *words)
            outcome = finish(Process(place.at(1, command), environment=environment()))
            assert outcome.status == 0, (words, outcome.err)
        damaged = place.damaged
    for source, target in ((there, served), (served, there)):
        assert (target / "got").read_bytes() == (source / "file").read_bytes()
        assert inventory(target / "got-tree") == inventory(source / "tree")
        wait_until_tidy(target)
    assert damaged >= 4
