"""Transfers that are cut short, and the same command again; sources that grow or change between two runs."""

from __future__ import annotations

import os
import random
import signal
from typing import TYPE_CHECKING

import pytest

from benchmarks.journals import recorded_bytes
from benchmarks.processes import fsmux_server
from fsmux.files.basis import BEGUN_PIECE

from .kit import MIB, Outcome, Url, finish, good, run, start, visible, wait_until, wait_until_tidy

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.processes import Process, Server
    from benchmarks.relay import Direction, Relay

SIZE = 24 * MIB + 12_345
CHUNK = 1 * MIB
BEHIND = 3 * CHUNK
"""What had passed the relay and is not on record: a chunk cut by the stop, one whose checksum had not passed."""


def start_until(
    relay: Relay, direction: Direction, count: int, *words: str | os.PathLike[str], into: Path | None = None
) -> Process:
    """Start a command, and return when so many bytes have passed the relay, which holds back the rest.

    With ``into``, not before the receiver has recorded there what had passed, but for the last chunks.
    """
    relay.stop_after(direction, count)
    process = start(*words)

    def come() -> int:
        return recorded_bytes(into) if into else count

    wait_until(
        lambda: relay.reached.is_set() and come() >= count - BEHIND,
        during=process,
        told=lambda: (relay.passed, come()),
    )
    return process


def end(process: Process, relay: Relay, number: int) -> Outcome:
    """End a command that :func:`start_until` has started."""
    process.send_signal(number)
    outcome = finish(process)
    relay.go_on()
    return outcome


@pytest.fixture
def source(there: Path) -> Path:
    path = there / "source"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.mark.parametrize("at", [SIZE // 4, SIZE - CHUNK])
def test_an_upload_whose_client_is_killed_goes_on(relay: Relay, served: Path, source: Path, at: int) -> None:
    words = ("transfer", "--json", "--chunk-size", "1MiB", source, Url(relay.address)("copy"))
    killed = end(start_until(relay, "up", at, *words, into=served), relay, signal.SIGKILL)
    assert killed.status == -signal.SIGKILL
    assert visible(served) == set(), "nothing stands under the final name before it is whole"
    recorded = recorded_bytes(served)
    summary = good(*words).summary
    assert (served / "copy").read_bytes() == source.read_bytes()
    assert summary["bytes_sent"] + summary["bytes_resumed"] == SIZE
    assert summary["bytes_resumed"] >= recorded >= at - BEHIND, "nothing that was recorded is sent again"
    wait_until_tidy(served)


@pytest.mark.parametrize("at", [SIZE // 4, SIZE - CHUNK])
def test_a_download_whose_client_is_killed_goes_on(relay: Relay, served: Path, there: Path, at: int) -> None:
    content = os.urandom(SIZE)
    (served / "a").write_bytes(content)
    words = ("transfer", "--json", "--chunk-size", "1MiB", Url(relay.address)("a"), there / "copy")
    end(start_until(relay, "down", at, *words, into=there), relay, signal.SIGKILL)
    assert visible(there) == set()
    recorded = recorded_bytes(there)
    summary = good(*words).summary
    assert (there / "copy").read_bytes() == content
    assert summary["bytes_sent"] + summary["bytes_resumed"] == SIZE
    assert summary["bytes_resumed"] >= recorded >= at - BEHIND
    assert not (there / ".fsmux").exists()


@pytest.mark.parametrize(
    ("direction", "number", "size"),
    [
        ("up", signal.SIGINT, 6 * MIB),
        ("up", signal.SIGKILL, 6 * MIB),
        ("up", signal.SIGKILL, 3 * MIB),  # of one chunk
        ("down", signal.SIGINT, 6 * MIB),
        ("down", signal.SIGKILL, 6 * MIB),
        ("down", signal.SIGINT, 3 * MIB),
    ],
)
def test_what_came_of_chunks_that_were_not_whole_is_not_sent_again(
    relay: Relay, served: Path, there: Path, direction: Direction, number: signal.Signals, size: int
) -> None:
    """Three files side by side, stopped in the middle of their first chunks."""
    near, far = (there, served) if direction == "up" else (served, there)
    for name in "abc":
        (near / "from" / name).parent.mkdir(exist_ok=True)
        (near / "from" / name).write_bytes(os.urandom(size))
    url = Url(relay.address)
    pair = (f"{there}/from/", url("to")) if direction == "up" else (url("from/"), there / "to")
    relay.stop_after(direction, size + MIB)
    words = ("transfer", "--json", "-j", "2", *pair)  # with a second connection nothing of this size goes in packs
    process = start(*words, "--bwlimit", "30M")

    def written() -> int:
        return sum(part.stat().st_blocks * 512 for part in far.glob("**/.fsmux/*") if part.suffix in (".part", ".tmp"))

    wait_until(lambda: relay.reached.is_set() and written() > size, during=process, told=written)
    end(process, relay, number)
    summary = good(*words).summary
    assert all((far / "to" / name).read_bytes() == (near / "from" / name).read_bytes() for name in "abc")
    assert summary["bytes_sent"] + summary["bytes_resumed"] == 3 * size
    assert summary["bytes_resumed"] >= size - 3 * BEGUN_PIECE
    wait_until_tidy(far / "to" if direction == "down" else far)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_small_files_get_on_over_a_slow_link_that_breaks(
    relay: Relay, served: Path, there: Path, direction: Direction
) -> None:
    """What has come of a tree stands, but for the half second before the end."""
    near, far = (there, served) if direction == "up" else (served, there)
    (near / "from").mkdir()
    for number in range(60):
        (near / "from" / f"{number}").write_bytes(os.urandom(40_000))
    url = Url(relay.address)
    pair = (f"{there}/from/", url("to")) if direction == "up" else (url("from/"), there / "to")
    words = ("transfer", "--json", "--bwlimit", "400K", *pair)
    for done in (800_000, 1_600_000):
        relay.stop_after(direction, 800_000)
        process = start(*words)
        wait_until(relay.reached.is_set, during=process)
        end(process, relay, signal.SIGKILL)
        assert len(list((far / "to").glob("[0-9]*"))) * 40_000 > done - 2 * 250_000
    summary = good("transfer", "--json", *pair).summary
    assert summary["bytes_sent"] <= 60 * 40_000 - 1_600_000 + 2 * 250_000
    assert all((far / "to" / f"{n}").read_bytes() == (near / "from" / f"{n}").read_bytes() for n in range(60))


@pytest.mark.parametrize("direction", ["up", "down"])
def test_without_retries_a_killed_server_is_a_network_error_and_the_next_command_goes_on(
    relay: Relay, server: Server, served: Path, there: Path, source: Path, direction: Direction
) -> None:
    (served / "given").write_bytes(source.read_bytes())
    url = Url(relay.address)
    pair = (source, url("copy")) if direction == "up" else (url("given"), there / "copy")
    words = ("transfer", "--json", "--retries", "0", "--chunk-size", "1MiB", *pair)
    client = start_until(relay, direction, SIZE // 2, *words, into=served if direction == "up" else there)
    server.process.send_signal(signal.SIGKILL)
    relay.go_on()
    lost = finish(client)
    assert lost.status == 5
    assert lost.sentence
    with fsmux_server(served) as second:
        relay.target = second.address
        summary = good(*words).summary
    assert (served / "copy" if direction == "up" else there / "copy").read_bytes() == source.read_bytes()
    assert summary["bytes_sent"] + summary["bytes_resumed"] == SIZE
    assert summary["bytes_resumed"] >= SIZE // 2 - BEHIND


@pytest.mark.parametrize("direction", ["up", "down"])
def test_what_was_left_of_a_version_goes_when_another_one_came_in_a_pack(
    relay: Relay, served: Path, there: Path, direction: Direction
) -> None:
    source, target = (there / "src", served) if direction == "up" else (served / "src", there / "dst")
    source.mkdir()
    (source / "other").write_bytes(b"x")
    (source / "file").write_bytes(os.urandom(20 * MIB))
    url = Url(relay.address)
    ends = (f"{source}/", url("")) if direction == "up" else (url("src/"), target)
    words = ("transfer", "--chunk-size", "1MiB", *ends)
    end(start_until(relay, direction, 9 * MIB, *words, into=target), relay, signal.SIGINT)
    assert list((target / ".fsmux").glob("*.part"))
    os.truncate(source / "file", 200_000)
    good(*words)
    wait_until_tidy(target)
    assert (target / "file").read_bytes() == (source / "file").read_bytes()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_the_state_and_says_how_to_go_on(
    relay: Relay, served: Path, source: Path, number: signal.Signals, status: int
) -> None:
    words = ("transfer", "--json", "--chunk-size", "1MiB", source, Url(relay.address)("copy"))
    stopped = end(start_until(relay, "up", SIZE // 2, *words, into=served), relay, number)
    assert stopped.status == status, stopped.err
    assert "Traceback" not in stopped.err
    assert f"{source}" in stopped.err.splitlines()[-1] or f"{source}" in stopped.err.splitlines()[-2]
    assert "fsmux transfer --json --chunk-size 1MiB" in stopped.err
    assert visible(served) == set()
    assert good(*words).summary["bytes_resumed"] >= SIZE // 2 - BEHIND
    assert (served / "copy").read_bytes() == source.read_bytes()


def test_a_signal_that_comes_twice_at_once_counts_once(relay: Relay, served: Path, source: Path) -> None:
    """As ``timeout`` does it: to the process, and to its group."""
    words = ("transfer", "--chunk-size", "1MiB", source, Url(relay.address)("copy"))
    process = start_until(relay, "up", SIZE // 2, *words, into=served)
    process.send_signal(signal.SIGTERM)
    process.ended(0.02)
    stopped = end(process, relay, signal.SIGTERM)
    assert stopped.status == 143
    assert "goes on from there" in stopped.err


def test_only_what_has_gone_out_counts_as_sent(relay: Relay, served: Path, source: Path) -> None:
    words = ("transfer", "--json", "--bwlimit", "2M", source, Url(relay.address)("copy"))
    summary = end(start_until(relay, "up", MIB, *words), relay, signal.SIGTERM).summary
    assert MIB / 2 < summary["bytes_sent"] <= 2_100_000 * summary["seconds"]


def test_a_tree_goes_on_where_it_stopped(relay: Relay, served: Path, there: Path) -> None:
    tree = there / "tree"
    tree.mkdir()
    for number in range(40):
        (tree / f"{number}").write_bytes(os.urandom(MIB // 2))
    words = ("transfer", "--json", f"{tree}/", Url(relay.address)("copy"))
    end(start_until(relay, "up", 10 * MIB, *words), relay, signal.SIGKILL)
    before = visible(served / "copy") if (served / "copy").exists() else set()
    for name in before:
        assert (served / "copy" / name).read_bytes() == (tree / name).read_bytes()
    summary = good(*words).summary
    assert summary["skipped"] >= len(before)
    assert summary["files"] + summary["skipped"] == 40
    assert all((served / "copy" / f"{n}").read_bytes() == (tree / f"{n}").read_bytes() for n in range(40))


def test_no_resume_sends_everything(relay: Relay, served: Path, source: Path) -> None:
    words = ("transfer", "--json", "--chunk-size", "1MiB", source, Url(relay.address)("copy"))
    end(start_until(relay, "up", SIZE // 2, *words, into=served), relay, signal.SIGKILL)
    summary = good(*words, "--no-resume").summary
    assert (summary["bytes_sent"], summary["bytes_resumed"]) == (SIZE, 0)
    assert (served / "copy").read_bytes() == source.read_bytes()


def test_a_source_that_changed_while_the_transfer_was_down_is_sent_as_it_is_now(
    relay: Relay, served: Path, source: Path
) -> None:
    words = ("transfer", "--json", "--chunk-size", "1MiB", source, Url(relay.address)("copy"))
    end(start_until(relay, "up", SIZE // 2, *words, into=served), relay, signal.SIGKILL)
    content = bytearray(source.read_bytes())
    content[3 * MIB : 3 * MIB + 100] = os.urandom(100)
    source.write_bytes(content)
    summary = good(*words).summary
    assert (served / "copy").read_bytes() == bytes(content)
    assert summary["bytes_sent"] + summary["bytes_resumed"] == SIZE


def test_a_source_that_grew_sends_what_was_appended(url: Url, served: Path, there: Path) -> None:
    note = there / "note.txt"
    note.write_text("a first line\n")
    good("transfer", note, url("note.txt"))
    with note.open("a") as file:
        file.write("a second line\n")
    summary = good("transfer", "--json", note, url("note.txt")).summary
    assert (served / "note.txt").read_text() == "a first line\na second line\n"
    assert summary["bytes_sent"] == len("a second line\n")
    assert summary["bytes_resumed"] == len("a first line\n")


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_large_source_that_grew_sends_little_more(url: Url, served: Path, there: Path, direction: Direction) -> None:
    near, far = (there, served) if direction == "up" else (served, there)
    pair = (there / "log", url("log")) if direction == "up" else (url("log"), there / "log")
    words = ("transfer", "--json", "--chunk-size", "1MiB", *pair)
    (near / "log").write_bytes(os.urandom(9 * MIB + 500_000))
    good(*words)
    with (near / "log").open("ab") as file:
        file.write(os.urandom(700_000))
    summary = good(*words).summary
    assert (far / "log").read_bytes() == (near / "log").read_bytes()
    assert summary["bytes_sent"] <= 700_000 + MIB
    assert summary["bytes_sent"] + summary["bytes_resumed"] == 9 * MIB + 1_200_000


def test_a_source_edited_in_place_arrives_as_it_is_now(url: Url, served: Path, source: Path) -> None:
    words = ("transfer", "--json", "--chunk-size", "1MiB", source, url("copy"))
    good(*words)
    content = bytearray(source.read_bytes())
    content[5 * MIB] ^= 1
    source.write_bytes(content)
    good(*words)
    assert (served / "copy").read_bytes() == bytes(content)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_byte_damaged_on_the_way_is_healed(
    relay: Relay, served: Path, there: Path, source: Path, direction: Direction
) -> None:
    (served / "given").write_bytes(source.read_bytes())
    url = Url(relay.address)
    pair = (source, url("copy")) if direction == "up" else (url("given"), there / "copy")
    relay.damage(direction, SIZE // 2)
    summary = good("transfer", "--json", "--chunk-size", "1MiB", *pair).summary
    assert (served / "copy" if direction == "up" else there / "copy").read_bytes() == source.read_bytes()
    assert summary["retries"] == 1
    assert SIZE <= summary["bytes_sent"] <= SIZE + CHUNK


JOURNALS = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2 + 3],
    "header cut": lambda data: data[:20],
    "garbage": lambda data: random.Random(1).randbytes(len(data)),
    "zeros at the end": lambda data: data[:-40] + bytes(40),
    "a bit in the header": lambda data: data[:30] + bytes([data[30] ^ 4]) + data[31:],
    "a bit in a record": lambda data: data[:-50] + bytes([data[-50] ^ 4]) + data[-49:],
    "more than there was": lambda data: data + data[-100:],
}


@pytest.mark.parametrize("damage", JOURNALS)
def test_a_damaged_journal_costs_time_and_nothing_else(relay: Relay, served: Path, source: Path, damage: str) -> None:
    words = ("transfer", "--json", "--chunk-size", "1MiB", source, Url(relay.address)("copy"))
    end(start_until(relay, "up", SIZE // 2, *words, into=served), relay, signal.SIGKILL)
    (journal,) = (served / ".fsmux").glob("*.journal")
    journal.write_bytes(JOURNALS[damage](journal.read_bytes()))
    summary = good(*words).summary
    assert (served / "copy").read_bytes() == source.read_bytes()
    assert summary["bytes_sent"] + summary["bytes_resumed"] == SIZE
    wait_until_tidy(served)


def test_a_part_that_lost_what_its_journal_says_is_noticed(
    relay: Relay, server: Server, served: Path, source: Path
) -> None:
    words = ("transfer", "--json", "--retries", "0", "--chunk-size", "1MiB", source, Url(relay.address)("copy"))
    client = start_until(relay, "up", SIZE // 2, *words, into=served)
    server.process.send_signal(signal.SIGKILL)  # so that it had no time to sync, and claims nothing for certain
    relay.go_on()
    finish(client)
    (part,) = (served / ".fsmux").glob("*.part")
    with part.open("r+b") as file:
        file.seek(2 * MIB + 5)
        file.write(b"damage")
    with fsmux_server(served) as second:
        relay.target = second.address
        good(*words)
    assert (served / "copy").read_bytes() == source.read_bytes()


def test_two_uploads_to_one_name_do_not_mix(relay: Relay, served: Path, source: Path, there: Path) -> None:
    words = ("transfer", "--json", source, Url(relay.address)("copy"))
    first = start_until(relay, "up", SIZE // 2, *words)
    other = there / "other"
    other.write_bytes(os.urandom(SIZE))
    second = run("transfer", "--json", other, Url(relay.target)("copy"))
    relay.go_on()
    finished = finish(first)
    assert finished.status == 0, finished.err
    winner = source if second.status else other
    assert (served / "copy").read_bytes() in (source.read_bytes(), winner.read_bytes())


EDITS: dict[str, tuple[list[tuple[int, bytes]], int, int]] = {
    "one byte": ([(5 * MIB + 77, b"!")], SIZE, CHUNK),
    "the first byte": ([(0, b"!")], SIZE, CHUNK),
    "the last byte": ([(SIZE - 1, b"!")], SIZE, CHUNK),
    "three places": ([(1, b"!"), (9 * MIB, b"some bytes"), (20 * MIB + 5, b"!")], SIZE, 3 * CHUNK),
    "across a border of chunks": ([(7 * CHUNK - 1, b"!!")], SIZE, 2 * CHUNK),
    "truncated": ([], 11 * MIB + 99, CHUNK),
    "truncated and edited": ([(3 * MIB, b"!")], 11 * MIB + 99, 2 * CHUNK),
    "grown": ([], SIZE + 2 * MIB, 3 * CHUNK),
    "grown and edited": ([(3 * MIB, b"!")], SIZE + 2 * MIB, 4 * CHUNK),
}
"""What is written over, how large the file is then, and how many bytes of it may be sent, beside a little."""


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_source_edited_in_place_sends_the_chunks_that_changed(
    url: Url, served: Path, there: Path, direction: Direction, edit: str
) -> None:
    places, size, most = EDITS[edit]
    near, far = (there, served) if direction == "up" else (served, there)
    pair = (there / "image", url("image")) if direction == "up" else (url("image"), there / "image")
    words = ("transfer", "--json", "--chunk-size", "1MiB", *pair)
    (near / "image").write_bytes(os.urandom(SIZE))
    good(*words)
    with (near / "image").open("r+b") as file:
        for offset, data in places:
            file.seek(offset)
            file.write(data)
        file.truncate(min(size, SIZE))
        file.seek(0, os.SEEK_END)
        file.write(os.urandom(max(0, size - SIZE)))
    summary = good(*words).summary
    assert (far / "image").read_bytes() == (near / "image").read_bytes()
    assert summary["bytes_sent"] <= most + 64 * 1024
    assert summary["bytes_sent"] + summary["bytes_resumed"] == size
