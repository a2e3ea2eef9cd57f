"""``-``: what a process writes becomes a file on the server, and a file there is read by a process."""

from __future__ import annotations

import json
import os
import random
import signal
import stat
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.processes import FSMUX, environment, fsmux_server

from .kit import DEADLINE, MIB, Outcome, Url, good, run, visible, wait_until, wait_until_tidy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.processes import Server
    from benchmarks.relay import Relay

SIZE = 24 * MIB + 12_345


class Piped:
    """A command of fsmux whose stdin and stdout are pipes."""

    def __init__(self, *words: str | os.PathLike[str], umask: int = 0o022) -> None:
        self.process = subprocess.Popen(
            [*FSMUX, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment()},
            umask=umask,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout

    def end(self, given: bytes | None = None) -> tuple[bytes, Outcome]:
        """Write this to its stdin, end that, and wait for its end: what it wrote to stdout, and the rest."""
        try:
            out, err = self.process.communicate(given, timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        lines = err.decode().splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        return out, Outcome(self.process.returncode, os.fsdecode(out), err.decode(), events)


def feed(given: bytes, *words: str | os.PathLike[str]) -> Outcome:
    return Piped(*words).end(given)[1]


def draw(*words: str | os.PathLike[str]) -> tuple[bytes, Outcome]:
    return Piped(*words).end()


def in_pieces(content: bytes, seed: int) -> Iterator[bytes]:
    """The same in pieces of all sizes, from one byte to more than a pipe holds."""
    chance = random.Random(seed)
    offset = 0
    while offset < len(content):
        step = int(2 ** chance.uniform(0, 22))
        yield content[offset : offset + step]
        offset += step


@pytest.mark.parametrize("size", [0, 1, 4096, 4 * MIB, SIZE])
def test_both_ways(url: Url, served: Path, size: int) -> None:
    content = os.urandom(size)
    outcome = feed(content, "transfer", "--json", "-", url("new/deep/name"))
    assert outcome.status == 0, outcome.err
    assert (served / "new/deep/name").read_bytes() == content
    wanted = {"files": 1, "bytes": size, "bytes_sent": size, "failed": 0, "retries": 0}
    assert wanted.items() <= outcome_of(outcome).items()
    found, outcome = draw("transfer", "--json", url("new/deep/name"), "-")
    assert outcome.status == 0, outcome.err
    assert found == content
    assert wanted.items() <= outcome.summary.items()
    assert outcome.err.splitlines()[-1].startswith("1 file, ")
    wait_until_tidy(served)


def outcome_of(outcome: Outcome) -> dict[str, Any]:
    """The summary on stdout, which is free for it when the data goes the other way."""
    last: dict[str, Any] = json.loads(outcome.out.splitlines()[-1])
    return last


def test_pieces_of_any_size_become_one_file(url: Url, served: Path) -> None:
    content = os.urandom(SIZE)
    piped = Piped("transfer", "--quiet", "-", url("name"))
    for piece in in_pieces(content, 1):
        piped.stdin.write(piece)
        piped.stdin.flush()
    assert piped.end()[1].status == 0
    assert (served / "name").read_bytes() == content


def test_pieces_of_any_size_are_read(url: Url, served: Path) -> None:
    (served / "name").write_bytes(content := os.urandom(SIZE))
    piped = Piped("transfer", "--quiet", "--chunk-size", "64KiB", url("name"), "-")
    found = bytearray()
    for piece in in_pieces(content, 2):
        found += piped.stdout.read(len(piece))
    rest, outcome = piped.end()
    assert (outcome.status, outcome.err) == (0, "")
    assert found + rest == content


def test_files_take_the_place_of_pipes(url: Url, served: Path, there: Path) -> None:
    (there / "given").write_bytes(content := os.urandom(SIZE))
    with (there / "given").open("rb") as given:
        subprocess.run(
            [*FSMUX, "transfer", "-q", "-", url("name")], stdin=given, env=own(), check=True, timeout=DEADLINE
        )
    assert (served / "name").read_bytes() == content
    with (there / "log").open("ab") as log:
        log.write(b"before")
        log.flush()
        subprocess.run(
            [*FSMUX, "transfer", "-q", url("name"), "-"], stdout=log, env=own(), check=True, timeout=DEADLINE
        )
    assert (there / "log").read_bytes() == b"before" + content


def own() -> dict[str, str]:
    return {**os.environ, **environment()}


@pytest.mark.parametrize("size", ["64KiB", "64MiB"])
def test_chunks_of_any_size_go_to_stdout(url: Url, served: Path, size: str) -> None:
    (served / "name").write_bytes(content := os.urandom(65 * MIB))
    found, outcome = draw("transfer", "--quiet", "--chunk-size", size, url("name"), "-")
    assert (outcome.status, outcome.err) == (0, "")
    assert found == content


# ---- the file that comes from stdin --------------------------------------------------------------------------------


def test_nothing_has_the_name_before_all_of_it_is_there(url: Url, served: Path) -> None:
    (served / "name").write_bytes(b"what stood before")
    piped = Piped("transfer", "--quiet", "-", url("name"))
    piped.stdin.write(os.urandom(SIZE))
    piped.stdin.flush()
    wait_for_parts(served, 16 * MIB)
    assert (served / "name").read_bytes() == b"what stood before"
    assert piped.end()[1].status == 0
    assert (served / "name").stat().st_size == SIZE


def wait_for_parts(served: Path, size: int) -> None:
    wait_until(lambda: sum(path.stat().st_size for path in served.glob(".fsmux/*.tmp")) >= size)


def test_permissions_are_those_of_any_new_file(url: Url, served: Path) -> None:
    for umask, mode in ((0o022, 0o644), (0o077, 0o600)):
        piped = Piped("transfer", "--quiet", "-", url("name"), umask=umask)
        assert piped.end(b"content")[1].status == 0
        assert stat.S_IMODE((served / "name").stat().st_mode) == mode


def test_a_producer_that_is_killed_has_written_what_it_has_written(url: Url, served: Path) -> None:
    producer = subprocess.Popen(["sh", "-c", "echo begun; exec sleep 60"], stdout=subprocess.PIPE)
    assert producer.stdout is not None
    consumer = subprocess.Popen([*FSMUX, "transfer", "-q", "-", url("name")], stdin=producer.stdout, env=own())
    producer.stdout.close()
    wait_for_parts(served, 6)
    producer.kill()
    producer.wait()
    assert consumer.wait(DEADLINE) == 0
    assert (served / "name").read_bytes() == b"begun\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing(url: Url, served: Path, number: signal.Signals, status: int) -> None:
    piped = Piped("transfer", "-", url("name"))
    piped.stdin.write(os.urandom(MIB))
    piped.stdin.flush()
    wait_for_parts(served, MIB)
    piped.process.send_signal(number)
    outcome = piped.end()[1]
    assert outcome.status == status
    assert f"stopped by {number.name}\n" in outcome.err, "and no command that would go on"
    good("ls", url())
    wait_until_tidy(served)
    assert visible(served) == set()


def test_a_client_that_is_killed_leaves_nothing_behind_its_server(server: Server, url: Url, served: Path) -> None:
    piped = Piped("transfer", "-", url("name"))
    piped.stdin.write(os.urandom(MIB))
    piped.stdin.flush()
    wait_for_parts(served, MIB)
    piped.process.kill()
    piped.end()
    assert visible(served) == set()
    server.process.send_signal(signal.SIGTERM)  # which waits for clients that may come back no longer
    wait_until_tidy(served)


def test_a_lost_connection_goes_on_with_what_the_server_has(relay: Relay, served: Path) -> None:
    content = os.urandom(SIZE)
    relay.stop_after("up", SIZE // 2)
    piped = Piped("transfer", "--json", "-", Url(relay.address)("name"))
    writer = threading.Thread(target=lambda: (piped.stdin.write(content), piped.stdin.close()))
    writer.start()
    assert relay.reached.wait(DEADLINE)
    wait_for_parts(served, 8 * MIB)
    relay.cut(0)
    relay.go_on()
    writer.join()
    outcome = drained(piped)
    assert outcome.status == 0, outcome.err
    assert (served / "name").read_bytes() == content
    assert {"files": 1, "bytes": SIZE, "bytes_sent": SIZE, "retries": 1}.items() <= outcome_of(outcome).items()
    assert relay.passed["up"] < 2 * SIZE, "what the server had was not sent again"
    wait_until_tidy(served)


def drained(piped: Piped) -> Outcome:
    """The end of a command whose stdin was closed before."""
    out = piped.stdout.read()
    status = piped.process.wait(DEADLINE)
    assert piped.process.stderr is not None
    with piped.process.stderr as errors, piped.stdout:
        return Outcome(status, os.fsdecode(out), errors.read().decode())


def test_a_network_that_falls_silent_is_left_and_the_file_goes_on(relay: Relay, served: Path) -> None:
    """The server believes in the old connection until the end."""
    content = os.urandom(SIZE)
    relay.stop_after("up", SIZE // 2)
    piped = Piped("transfer", "--json", "--timeout", "1", "-", Url(relay.address)("name"))
    writer = threading.Thread(target=lambda: (piped.stdin.write(content), piped.stdin.close()))
    writer.start()
    assert relay.reached.wait(DEADLINE)
    relay.leave_behind()
    writer.join()
    outcome = drained(piped)
    assert outcome.status == 0, outcome.err
    assert (served / "name").read_bytes() == content
    relay.go_on()
    assert run("stat", Url(relay.address)("name")).status == 0
    assert (served / "name").read_bytes() == content


@pytest.mark.parametrize("again", [False, True])
def test_a_server_that_is_killed_is_a_network_error_and_nothing_has_the_name(
    server: Server, url: Url, served: Path, again: bool
) -> None:
    piped = Piped("transfer", "--json", "--retries", "20" if again else "0", "-", url("name"))
    piped.stdin.write(os.urandom(SIZE))
    piped.stdin.flush()
    wait_for_parts(served, SIZE)
    server.process.send_signal(signal.SIGKILL)
    assert server.process.ended(DEADLINE)
    if again:
        with fsmux_server(served, "--listen", server.address):
            outcome = piped.end()[1]
        assert "no longer has what it had" in outcome.err
    else:
        outcome = piped.end()[1]
        assert "cannot be read again" in outcome.sentence
    assert outcome.status == 5
    assert visible(served) == set()


def test_a_server_that_is_not_there_yet_is_waited_for(there: Path, tmp_path: Path) -> None:
    with fsmux_server(there) as first:
        address = first.address
    piped = Piped("transfer", "--retries", "30", "-", Url(address)("name"))
    piped.stdin.write(b"content")
    with fsmux_server(there, "--listen", address):
        outcome = piped.end()[1]
    assert outcome.status == 0, outcome.err
    assert (there / "name").read_bytes() == b"content"


@pytest.mark.parametrize("place", ["", "directory", "directory/", "nothing/"])
def test_a_directory_needs_a_name(url: Url, served: Path, place: str) -> None:
    (served / "directory").mkdir()
    for words in ((), ("-n",)):
        outcome = feed(b"content", "transfer", *words, "-", url(place))
        assert outcome.status == 2
        assert "add the name" in outcome.sentence
    assert visible(served) == {"directory"}


@pytest.mark.parametrize(
    "words",
    [("-c",), ("--update",), ("--exclude", "*.o"), ("--include", "a"), ("--files-from", "names"), ("--from0",),
     ("--no-times",), ("--no-perms",), ("--owner",), ("--xattrs",), ("--delete",), ("--manifest", "sums")],
)  # fmt: skip
def test_what_has_no_meaning_for_a_pipe_is_refused(url: Url, served: Path, words: tuple[str, ...]) -> None:
    (served / "file").write_bytes(b"content")
    for ends in (("-", url("name")), (url("file"), "-")):
        outcome = run("transfer", *words, *ends)
        assert (outcome.status, outcome.out) == (2, "")
        assert "-" in outcome.sentence
    assert visible(served) == {"file"}


def test_what_is_configured_for_other_transfers_does_not_stop_a_pipe(
    url: Url, served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text('[transfer]\nchecksum = true\nexclude = ["f*"]\nowner = true\n')
    monkeypatch.setenv("FSMUX_CONFIG", str(tmp_path / "config.toml"))
    (served / "file").write_bytes(b"content")
    assert draw("transfer", "-q", url("file"), "-")[0] == b"content"
    assert feed(b"other", "transfer", "-q", "-", url("name")).status == 0
    assert (served / "name").read_bytes() == b"other"


def test_a_server_that_may_not_be_written_to_reads_nothing(served: Path) -> None:
    with fsmux_server(served, write=False) as server:
        for words in ((), ("-n",)):
            piped = Piped("transfer", *words, "-", Url(server.address)("name"))
            assert piped.process.wait(DEADLINE) == 6, "although its stdin is still open"
            piped.end()


def test_a_dry_run_reads_nothing(url: Url, served: Path) -> None:
    piped = Piped("transfer", "-n", "-", url("name"))
    assert piped.process.wait(DEADLINE) == 0
    out, _ = piped.end()
    assert out.decode().splitlines() == [f"- -> {url('name')}", "would send name"]
    assert visible(served) == set()


# ---- the file that goes to stdout ----------------------------------------------------------------------------------


def test_a_reader_that_has_enough_ends_it_quietly(url: Url, served: Path) -> None:
    (served / "name").write_bytes(content := os.urandom(SIZE))
    piped = Piped("transfer", "--json", "-v", url("name"), "-")
    assert piped.stdout.read(10) == content[:10]
    piped.stdout.close()
    assert piped.process.wait(DEADLINE) == 128 + signal.SIGPIPE
    piped.stdin.close()
    assert piped.process.stderr is not None
    with piped.process.stderr as errors:
        err = errors.read().decode()
    assert "Traceback" not in err
    assert "fsmux:" not in err.replace("fsmux://", "")
    assert "summary" not in err


def test_a_reader_that_waits_is_waited_for(url: Url, served: Path) -> None:
    (served / "name").write_bytes(os.urandom(64 * MIB))
    piped = Piped("transfer", "--json", url("name"), "-")
    piped.stdout.read(MIB)
    piped.process.send_signal(signal.SIGINT)
    assert piped.process.wait(DEADLINE) == 130, "although nobody reads"
    piped.end()


def test_a_source_that_changes_is_noticed(relay: Relay, served: Path) -> None:
    (served / "name").write_bytes(os.urandom(SIZE))
    relay.stop_after("down", 9 * MIB)
    piped = Piped("transfer", "--json", Url(relay.address)("name"), "-")
    reader = threading.Thread(target=piped.stdout.read)
    reader.start()
    assert relay.reached.wait(DEADLINE)
    with (served / "name").open("r+b") as file:
        file.write(b"changed")
    relay.go_on()
    reader.join()
    assert piped.process.wait(DEADLINE) == 4
    assert "changed" in piped.end()[1].err


def test_what_cannot_go_to_stdout(url: Url, served: Path) -> None:
    (served / "directory").mkdir()
    for place, status, words in (("directory", 2, "only a file"), ("nothing", 4, "no such file")):
        for more in ((), ("-n",)):
            out, outcome = draw("transfer", *more, url(place), "-")
            assert (out, outcome.status) == (b"", status)
            assert words in outcome.err


def test_a_lost_connection_goes_on_behind_the_last_byte(relay: Relay, served: Path) -> None:
    (served / "name").write_bytes(content := os.urandom(SIZE))
    relay.stop_after("down", 11 * MIB)
    piped = Piped("transfer", "--json", "--chunk-size", "1MiB", Url(relay.address)("name"), "-")
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(piped.stdout.read()))
    reader.start()
    assert relay.reached.wait(DEADLINE)
    relay.cut(0)
    relay.go_on()
    reader.join()
    assert piped.process.wait(DEADLINE) == 0
    assert b"".join(found) == content
    outcome = piped.end()[1]
    assert outcome.summary["retries"] == 1
    assert SIZE <= outcome.summary["bytes_sent"] <= SIZE + 16 * MIB


def test_a_file_that_was_replaced_meanwhile_is_another_one(relay: Relay, served: Path) -> None:
    (served / "name").write_bytes(os.urandom(SIZE))
    relay.stop_after("down", 11 * MIB)
    piped = Piped("transfer", "--json", Url(relay.address)("name"), "-")
    reader = threading.Thread(target=piped.stdout.read)
    reader.start()
    assert relay.reached.wait(DEADLINE)
    (served / "name").write_bytes(os.urandom(SIZE))
    relay.cut(0)
    relay.go_on()
    reader.join()
    assert piped.process.wait(DEADLINE) == 4
    assert "changed" in piped.end()[1].err


def test_a_byte_that_is_damaged_on_the_way_to_stdout_is_healed(relay: Relay, served: Path) -> None:
    (served / "name").write_bytes(content := os.urandom(SIZE))
    relay.damage("down", SIZE // 2)
    found, outcome = draw("transfer", "--json", "--chunk-size", "1MiB", Url(relay.address)("name"), "-")
    assert outcome.status == 0, outcome.err
    assert found == content
    assert outcome.summary["retries"] == 1


def test_a_byte_that_is_damaged_on_the_way_from_stdin_is_healed(relay: Relay, served: Path) -> None:
    relay.damage("up", SIZE // 2)
    outcome = feed(content := os.urandom(SIZE), "transfer", "--json", "-", Url(relay.address)("name"))
    assert outcome.status == 0, outcome.err
    assert (served / "name").read_bytes() == content
    assert json.loads(outcome.out.splitlines()[-1])["retries"] == 1


def test_the_rate_is_limited(url: Url, served: Path) -> None:
    content = os.urandom(2 * MIB)
    started = time.monotonic()
    assert feed(content, "transfer", "-q", "--bwlimit", "4M", "-", url("name")).status == 0
    assert draw("transfer", "-q", "--bwlimit", "4M", url("name"), "-")[0] == content
    assert time.monotonic() - started > 2 * (2 * MIB / 4e6) - 0.3


def test_a_closed_stdin_or_stdout_is_said(url: Url, served: Path) -> None:
    (served / "name").write_bytes(b"content")
    for redirection, words in (("<&-", f"- {url('other')}"), (">&-", f"{url('name')} -")):
        line = f"{' '.join(map(str, FSMUX))} transfer {words} {redirection}"
        found = subprocess.run(["sh", "-c", line], env=own(), capture_output=True, timeout=DEADLINE, check=False)
        assert found.returncode == 2
        assert b"is closed" in found.stderr
    assert run("stat", url("other")).status == 4
