"""One command that outlives its connections: servers that restart, networks that fall silent, and giving up."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.harness import random_file
from benchmarks.processes import fsmux_server
from benchmarks.restarts import Restarts

from .kit import MIB, Url, finish, run, start, wait_until, wait_until_tidy
from .test_resume import BEHIND, start_until

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.processes import Process, Server
    from benchmarks.relay import Direction, Relay

SIZE = 24 * MIB + 12_345
WORDS = ("transfer", "--json", "--chunk-size", "1MiB")
IMPATIENT = "1"
"""Seconds of silence after which a test's client gives a connection up."""


def pair(direction: Direction, address: str, near: Path, far: Path, name: str = "file") -> tuple[str | Path, ...]:
    url = Url(address)
    return (near / name, url(name)) if direction == "up" else (url(name), far / name)


def wait_for(process: Process, text: str, times: int = 1) -> None:
    """Until a command has said so on stderr so often."""
    said = process.errors_until_now
    wait_until(lambda: said().count(text) >= times, during=process, told=said)


def of(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind]


# ---- servers that restart ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", ["1", "4"])
def test_a_server_that_restarts_during_a_file(direction: str, lanes: str, tmp_path: Path) -> None:
    with Restarts(tmp_path, "none") as restarts:
        random_file((restarts.own if direction == "up" else restarts.served) / "file", 24 * MIB)
        options = ("--chunk-size", "1MiB", "--bwlimit", "20M", "-j", lanes)
        found = restarts.run(direction, "file", 3, *options)
    assert not found.complaints
    assert found.summary["retries"] >= 3


def test_a_server_that_restarts_during_a_tree(direction: str, tmp_path: Path) -> None:
    """Small files in packs, files of moderate size, and one that takes part in more than one attempt.

    That one shares the link with the packs.  It is under way when a third of all stands, and with it two thirds do, so
    that no single step is worth two restarts, and some packs are left behind the second one.
    """
    with Restarts(tmp_path, "none") as restarts:
        top = (restarts.own if direction == "up" else restarts.served) / "tree"
        for number in range(8):
            (top / f"{number}").mkdir(parents=True)
            for name in range(300):
                random_file(top / f"{number}/{name}", 12_000)
            random_file(top / f"{number}/moderate", MIB // 2)
        random_file(top / "large", 24 * MIB + 5)
        found = restarts.run(direction, "tree", 2, "--chunk-size", "1MiB", "--bwlimit", "20M")
    assert not found.complaints


def test_what_was_up_to_date_before_counts_as_skipped_however_often_it_is_looked_at(tmp_path: Path) -> None:
    with Restarts(tmp_path, "none") as restarts:
        top = restarts.own / "tree"
        top.mkdir()
        for name in range(30):
            random_file(top / f"a{name}", 10_000)
        words = (f"{top}/", f"fsmux://{restarts.address}/copy")
        assert run(*WORDS, *words).status == 0
        random_file(top / "b", 24 * MIB)
        process = start(*WORDS, "--bwlimit", "12M", *words)
        wait_until(lambda: list(restarts.served.glob(".fsmux/*.journal")), during=process)
        restarts.restart(signal.SIGKILL)
        outcome = finish(process)
    assert outcome.status == 0, outcome.err
    summary = outcome.summary
    assert (summary["files"], summary["skipped"], summary["bytes"]) == (1, 30, 24 * MIB)
    assert summary["retries"] >= 1
    assert len(of(outcome.events, "file_skipped")) == 30
    assert len(of(outcome.events, "plan")) == 1


# ---- a network that fails ------------------------------------------------------------------------------------------


def test_a_network_that_falls_silent_is_noticed_and_the_lock_taken_over(
    direction: Direction, relay: Relay, near: Path, far: Path
) -> None:
    """Neither side is told anything; the server believes in the old connection until the end."""
    random_file(near / "file", SIZE)
    words = (*WORDS, "--timeout", IMPATIENT, *pair(direction, relay.address, near, far))
    client = start_until(relay, direction, SIZE // 2, *words, into=far)
    wait_for(client, "silent for")
    relay.leave_behind()
    outcome = finish(client)
    assert outcome.status == 0, outcome.err
    assert (far / "file").read_bytes() == (near / "file").read_bytes()
    assert outcome.summary["bytes_resumed"] == 0, "all of it came in this run"
    assert SIZE <= outcome.summary["bytes_sent"] <= SIZE + 16 * MIB
    *_, last = of(outcome.events, "file_start")
    assert last["bytes_resumed"] >= SIZE // 2 - BEHIND
    relay.go_on()  # and what was on its way on the dead connection arrives after all
    assert run("stat", Url(relay.address)("file")).status == 0
    assert (far / "file").read_bytes() == (near / "file").read_bytes()
    wait_until_tidy(far)


def test_a_retry_says_what_happened_and_when_it_goes_on(relay: Relay, there: Path, served: Path) -> None:
    random_file(there / "file", SIZE)
    words = (*WORDS, *pair("up", relay.address, there, served))
    client = start_until(relay, "up", SIZE // 2, *words)
    relay.cut(0)
    relay.go_on()
    outcome = finish(client)
    assert outcome.status == 0, outcome.err
    (retry,) = of(outcome.events, "retry")
    assert (retry["path"], retry["attempt"]) == ("", 1)
    assert 0 < retry["delay"] <= 0.5
    assert "connection" in retry["message"]
    assert "trying again in" in outcome.err
    assert outcome.summary["retries"] == 1
    assert [event["path"] for event in of(outcome.events, "file_done")] == ["file"]


def test_what_this_run_has_brought_is_resumed_without_resuming(relay: Relay, there: Path, served: Path) -> None:
    """``--no-resume`` is about what an earlier command has left."""
    random_file(there / "file", SIZE)
    words = (*WORDS, "--no-resume", *pair("up", relay.address, there, served))
    client = start_until(relay, "up", SIZE // 2, *words, into=served)
    relay.cut(0)
    relay.go_on()
    outcome = finish(client)
    assert outcome.status == 0, outcome.err
    *_, last = of(outcome.events, "file_start")
    assert last["bytes_resumed"] >= SIZE // 2 - BEHIND


# ---- giving up -----------------------------------------------------------------------------------------------------


def test_ctrl_c_while_it_waits_for_the_next_attempt(relay: Relay, server: Server, there: Path, served: Path) -> None:
    random_file(there / "file", SIZE)
    words = (*WORDS, *pair("up", relay.address, there, served))
    client = start_until(relay, "up", SIZE // 2, *words)
    server.process.send_signal(signal.SIGKILL)
    relay.go_on()
    wait_for(client, "trying again in", 4)  # the next one is seconds away
    client.send_signal(signal.SIGINT)
    pressed = time.monotonic()
    outcome = finish(client)
    assert time.monotonic() - pressed < 2
    assert outcome.status == 130
    assert "fsmux transfer --json --chunk-size 1MiB" in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.events[-1]["event"] == "summary"


@pytest.mark.parametrize("retries", ["0", "2"])
def test_it_gives_up_after_so_many_attempts(
    relay: Relay, server: Server, there: Path, served: Path, retries: str
) -> None:
    random_file(there / "file", SIZE)
    words = (*WORDS, "--retries", retries, *pair("up", relay.address, there, served))
    client = start_until(relay, "up", SIZE // 2, *words)
    server.process.send_signal(signal.SIGKILL)
    relay.go_on()
    outcome = finish(client)
    assert outcome.status == 5
    assert len(of(outcome.events, "retry")) == int(retries)
    (error,) = of(outcome.events, "error")
    assert error["retryable"]
    assert ("gave up after 2 further attempts" in error["message"]) == (retries == "2")
    assert "same command goes on" in error["message"]


def test_the_first_connection_is_tried_once_unless_told_otherwise(there: Path, tmp_path: Path) -> None:
    (there / "file").write_bytes(b"content")
    with Restarts(tmp_path / "place") as restarts:
        url = f"fsmux://{restarts.address}/copy"
    outcome = run(*WORDS, there / "file", url)
    assert outcome.status == 5
    assert not of(outcome.events, "retry")
    assert "refused" in outcome.sentence
    client = start(*WORDS, "--retries", "30", there / "file", url)
    wait_for(client, "trying again in", 2)
    with fsmux_server(tmp_path / "place/served", "--listen", restarts.address):
        outcome = finish(client)
    assert outcome.status == 0, outcome.err
    assert (tmp_path / "place/served/copy").read_bytes() == b"content"


def test_what_is_no_fault_of_the_network_is_not_tried_again(server: Server, there: Path) -> None:
    url = Url(server.address)
    wrong = run(*WORDS, "--retries", "5", there, url("x"), env={"FSMUX_TOKEN": "not-the-token-of-this-server"})
    missing = run(*WORDS, "--retries", "5", there / "nothing", url("x"))
    (there / "port").write_text("")
    with fsmux_server(there, write=False) as other:
        refused = run(*WORDS, "--retries", "5", there / "port", Url(other.address)("x"))
    for outcome, status in ((wrong, 6), (missing, 4), (refused, 6)):
        assert outcome.status == status, outcome
        assert not of(outcome.events, "retry")


def test_a_config_file_says_how_often(there: Path, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[transfer]\nretries = 1\n")
    with Restarts(tmp_path / "place") as restarts:
        url = f"fsmux://{restarts.address}/copy"
    outcome = run(*WORDS, there, url, env={"FSMUX_CONFIG": os.fspath(tmp_path / "config.toml")})
    assert outcome.status == 5
    assert len(of(outcome.events, "retry")) == 1
    assert json.dumps(outcome.events).count("gave up after 1") == 1
