"""Networks that drip, fall silent, break and lie, processes that are stopped, and systems that refuse.

Theory: whatever is done to a transfer from outside, it ends well by itself, or with a status of the contract and one
sentence; nothing partial ever stands under a final name; and the same command, given again when the trouble is over,
ends well without sending again what had been put on record.  ``ROUGH_ROUNDS`` multiplies what is drawn at random
(``make torture``).
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import pytest

from benchmarks.harness import random_file
from benchmarks.journals import recorded_bytes
from benchmarks.processes import fsmux_server
from fsmux.errors import ExitCode

from .kit import DEADLINE, MIB, Url, finish, good, inventory, run, start, visible, wait_until, wait_until_tidy
from .test_reconnecting import pair, wait_for
from .test_resume import BEHIND, start_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.processes import Process, Server
    from benchmarks.relay import Direction, Relay

ROUNDS: Final = int(os.environ.get("ROUGH_ROUNDS", "1"))
SIZE: Final = 12 * MIB + 12_345
LONG: Final = 40 * MIB + 12_345
"""Whose second half is more than a window on a short link: a server that is stopped cannot have sent all of it by then.
"""

WORDS: Final = ("transfer", "--json", "--chunk-size", "1MiB")
OTHER: Final[dict[Direction, Direction]] = {"up": "down", "down": "up"}
IN_TIME: Final = ("--timeout", "1")
"""Of silence, after which a connection is given up."""

BY_CONTRACT: Final = frozenset(ExitCode) - {ExitCode.UNEXPECTED, ExitCode.USAGE}


def same(near: Path, far: Path, name: str = "file") -> bool:
    return (far / name).read_bytes() == (near / name).read_bytes()


def trees(direction: Direction, address: str, near: Path, far: Path, name: str = "file") -> tuple[str | Path, ...]:
    """As :func:`pair`, of directories."""
    source, target = pair(direction, address, near, far, name)
    return f"{source}/", target


def make_files(top: Path, sizes: Sequence[int]) -> list[Path]:
    top.mkdir()
    return [random_file(top / f"{number}", size) for number, size in enumerate(sizes)]


# ---- the network ---------------------------------------------------------------------------------------------------


def test_bytes_that_come_one_by_one(direction: Direction, relay: Relay, near: Path, far: Path) -> None:
    random_file(near / "file", 2 * MIB)
    relay.trickle(direction, 150_000)
    relay.trickle(OTHER[direction], 150_000)
    good(*WORDS, *pair(direction, relay.address, near, far))
    assert same(near, far)


@pytest.mark.parametrize("what", ["a file", "a tree"])
@pytest.mark.parametrize("with_it", [True, False], ids=["among the bytes", "among the answers"])
def test_a_flip_that_tcp_does_not_see_is_healed(
    direction: Direction, what: str, with_it: bool, relay: Relay, near: Path, far: Path
) -> None:
    """Wherever it is; in the first bytes of a connection it may look like another protocol or a wrong token."""
    rng = random.Random(f"{direction} {what} {with_it}")
    flipped = direction if with_it else OTHER[direction]
    for number in range(3 * ROUNDS):
        name = f"{number}"
        if what == "a file":
            files = [random_file(near / name, 2 * MIB)]
        else:
            files = make_files(near / name, rng.choices((100, 20_000, 300_000), k=20))
        early = rng.random() < 0.3 or not with_it
        relay.damage(flipped, rng.randrange(700 if early else MIB))
        words = (*WORDS, *(pair if what == "a file" else trees)(direction, relay.address, near, far, name))
        outcome = run(*words, *IN_TIME)
        if outcome.status:
            assert early, outcome
            assert outcome.status in BY_CONTRACT, outcome
            assert outcome.sentence
            standing = [file for file in files if (far / file.relative_to(near)).exists()]
            assert all((far / file.relative_to(near)).read_bytes() == file.read_bytes() for file in standing)
            good(*words)
        for file in files:
            assert (far / file.relative_to(near)).read_bytes() == file.read_bytes()
    wait_until_tidy(far)


def test_connections_that_break_again_and_again(direction: Direction, relay: Relay, near: Path, far: Path) -> None:
    random_file(near / "file", SIZE)
    rng = random.Random(direction)
    relay.stop_after(direction, rng.randrange(2 * MIB))
    client = start(*WORDS, *pair(direction, relay.address, near, far))
    recorded: list[int] = []
    for _ in range(4):
        while not relay.reached.wait(0.01):
            assert not client.ended(0), finish(client)
        recorded.append(recorded_bytes(far))
        relay.leave_behind()
        relay.cut(len(relay.by_connection) - 1)
        relay.stop_after(direction, rng.randrange(MIB, 3 * MIB))
    relay.go_on()
    outcome = finish(client)
    assert outcome.status == 0, outcome.err
    assert same(near, far)
    held = [event["bytes_resumed"] for event in outcome.events if event["event"] == "file_start"]
    assert len(held) >= 4
    assert all(found >= record for found, record in zip(held[-4:], recorded, strict=True)), (held, recorded)


# ---- processes that are stopped ------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["client", "server"])
def test_a_process_that_stops_for_a_moment(
    victim: str, direction: Direction, relay: Relay, server: Server, near: Path, far: Path
) -> None:
    """Nobody gives it up, and nothing is sent twice."""
    random_file(near / "file", LONG)
    client = start_until(relay, direction, LONG // 2, *WORDS, *pair(direction, relay.address, near, far))
    stopped = client if victim == "client" else server.process
    stopped.send_signal(signal.SIGSTOP)
    relay.go_on()
    assert not client.ended(0.5)
    assert visible(far) == set()
    stopped.send_signal(signal.SIGCONT)
    outcome = finish(client)
    assert outcome.status == 0, outcome.err
    assert same(near, far)
    assert (outcome.summary["bytes_sent"], outcome.summary["retries"]) == (LONG, 0)


def test_a_server_that_stops_for_longer_than_its_client_waits(
    direction: Direction, relay: Relay, server: Server, near: Path, far: Path
) -> None:
    random_file(near / "file", LONG)
    words = (*WORDS, *IN_TIME, *pair(direction, relay.address, near, far))
    client = start_until(relay, direction, LONG // 2, *words, into=far)
    server.process.send_signal(signal.SIGSTOP)
    relay.go_on()
    wait_for(client, "silent for")
    recorded = recorded_bytes(far)
    assert visible(far) == set()
    server.process.send_signal(signal.SIGCONT)
    outcome = finish(client)
    assert outcome.status == 0, outcome.err
    assert same(near, far)
    assert recorded >= LONG // 2 - BEHIND
    assert outcome.summary["bytes_sent"] <= 2 * LONG - recorded
    wait_until_tidy(far)


def test_a_client_that_stops_while_its_server_goes_away(
    direction: Direction, relay: Relay, server: Server, served: Path, near: Path, far: Path
) -> None:
    random_file(near / "file", SIZE)
    words = (*WORDS, *pair(direction, relay.address, near, far))
    client = start_until(relay, direction, SIZE // 2, *words, into=far)
    client.send_signal(signal.SIGSTOP)
    server.process.send_signal(signal.SIGKILL)
    assert server.process.ended(DEADLINE)
    recorded = recorded_bytes(far)
    with fsmux_server(served) as second:
        relay.target = second.address
        relay.go_on()
        client.send_signal(signal.SIGCONT)
        outcome = finish(client)
    assert outcome.status == 0, outcome.err
    assert same(near, far)
    assert outcome.summary["bytes_sent"] <= 2 * SIZE - recorded


def temporary(far: Path) -> set[Path]:
    return set((far / ".fsmux").glob("*.tmp"))


def test_a_client_in_the_midst_of_packs_that_stops_and_is_killed(url: Url, served: Path, there: Path) -> None:
    """As long as it lives, another one's transfer to the same place leaves its files alone, and not a moment longer."""
    make_files(served / "tree", [300] * 4000)
    (served / "other").write_bytes(b"other")
    far = there / "far"
    tree = ("transfer", "-q", url("tree/"), far)
    held: set[Path] = set()
    for _ in range(20):
        client = start(*tree)
        while len(held) < 10 and not client.ended(0.0):
            held = temporary(far)
        client.send_signal(signal.SIGSTOP)
        if held := temporary(far):
            break
        client.send_signal(signal.SIGKILL)
        finish(client)
        shutil.rmtree(far)
    assert held
    try:
        good("transfer", "-q", url("other"), far / "other")
        assert held <= temporary(far)
    finally:
        client.send_signal(signal.SIGKILL)
        finish(client)
    assert held <= temporary(far)
    good("transfer", "-q", url("other"), far / "another")
    wait_until_tidy(far)
    good(*tree)
    assert {path.name: path.read_bytes() for path in far.iterdir() if path.name.isdecimal()} == {
        path.name: path.read_bytes() for path in (served / "tree").iterdir()
    }


# ---- systems that refuse -------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB, which :func:`enlarge` makes larger."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system can only be made by root who may mount")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def enlarge(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)


def limited(process: Process, what: int, value: int) -> None:
    """From now on the process may have no more than this of something; :func:`unlimited` ends that."""
    resource.prlimit(process.pid, what, (value, resource.prlimit(process.pid, what)[1]))


def unlimited(process: Process, what: int) -> None:
    _, hard = resource.prlimit(process.pid, what)
    resource.prlimit(process.pid, what, (hard, hard))


def test_a_disk_that_becomes_full_and_is_made_larger(direction: Direction, small_disk: Path, there: Path) -> None:
    """Others take the space while the file is on its way, so that nobody could know before."""
    near, far = (there, small_disk) if direction == "up" else (small_disk.parent / "near", small_disk)
    near.mkdir(exist_ok=True)
    random_file(near / "file", 7 * MIB)
    with fsmux_server(far if direction == "up" else near) as server:
        words = (*WORDS, "--bwlimit", "6M", *pair(direction, server.address, near, far))
        client = start(*words)
        wait_until(lambda: recorded_bytes(far) >= 2 * MIB, during=client)
        hog = far / "hog"
        with hog.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(65536)):
                pass
        outcome = finish(client)
        assert visible(far) == {"hog"}
        assert outcome.status == 8, outcome
        assert "space" in outcome.sentence
        recorded = recorded_bytes(far)
        enlarge(far)
        again = good(*words).summary
    assert same(near, far)
    assert again["bytes_resumed"] >= recorded >= 2 * MIB
    assert again["bytes_sent"] + again["bytes_resumed"] == 7 * MIB


def test_a_limit_on_the_size_of_files(direction: Direction, server: Server, near: Path, far: Path) -> None:
    """The signal that comes with it ends nobody."""
    random_file(near / "file", SIZE)
    words = (*WORDS, *pair(direction, server.address, near, far))
    client = start(*words)
    victim = server.process if direction == "up" else client
    limited(victim, resource.RLIMIT_FSIZE, 5 * MIB)
    outcome = finish(client)
    assert outcome.status == 8, outcome
    assert outcome.sentence
    assert visible(far) == set()
    unlimited(server.process, resource.RLIMIT_FSIZE)
    recorded = recorded_bytes(far)
    again = good(*words).summary
    assert same(near, far)
    assert again["bytes_resumed"] >= recorded
    assert again["bytes_sent"] + again["bytes_resumed"] == SIZE


@pytest.mark.parametrize("spare", [0, 3, 9])
@pytest.mark.parametrize("victim", ["client", "server"])
def test_a_limit_on_open_files(
    victim: str, spare: int, direction: Direction, relay: Relay, server: Server, near: Path, far: Path
) -> None:
    """What there are no descriptors for fails, and succeeds when it is tried again with more of them."""
    (near / "file").mkdir()
    for number in range(3):
        make_files(near / f"file/{number}", [400_000, 4_000] * 3)
    words = (*WORDS, "--retries", "1", *trees(direction, relay.address, near, far))
    relay.stop_after("down", 200)  # in the greeting
    client = start(*words)
    assert relay.reached.wait(DEADLINE)
    process = client if victim == "client" else server.process
    open_now = len(os.listdir(f"/proc/{process.pid}/fd"))
    limited(process, resource.RLIMIT_NOFILE, open_now + spare)
    relay.go_on()
    outcome = finish(client)
    assert outcome.status in BY_CONTRACT | {0}, outcome
    assert "Traceback" not in outcome.err
    files = {name: facts[-1] for name, facts in inventory(near).items()}
    assert all(files[name] == facts[-1] for name, facts in inventory(far).items() if facts[0] == "file")
    unlimited(server.process, resource.RLIMIT_NOFILE)
    good(*words)
    assert inventory(far) == inventory(near)
    wait_until_tidy(far)
