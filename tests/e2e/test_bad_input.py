"""What goes wrong from outside: one clear sentence, the exit code of the contract, and nothing lost."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from benchmarks.processes import FSMUX, environment, fsmux_server
from fsmux.errors import ExitCode

from .kit import DEADLINE, MIB, Url, good, run, visible

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.processes import Server

SMALL_DISK = 8 * MIB


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that is soon full."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("a small file system can only be made by root who may mount")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@contextmanager
def impostor(answer: bytes, *, waits: bool = True) -> Iterator[str]:
    """A server of another kind: says ``answer`` to whoever connects, and leaves or waits for the other to leave."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(answer)
                while waits and connection.recv(65536):
                    pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (("transfer", "--json", "--chunk-size", "5", "here", "host:/x"), ExitCode.USAGE, "USAGE"),
        (("transfer", "--json", "--repair", "host:/x", "there"), ExitCode.USAGE, "USAGE"),
        (("verify", "--json", "nowhere"), ExitCode.SOURCE, "NOT_FOUND"),
    ],
)
def test_with_json_what_fails_before_it_begins_is_an_object_too(
    words: tuple[str, ...], status: ExitCode, code: str
) -> None:
    outcome = run(*words)
    assert outcome.status == status
    (event,) = outcome.events
    assert (event["event"], event["code"], event["message"]) == ("error", code, outcome.sentence)


def test_with_json_a_pipe_has_nothing_but_data() -> None:
    outcome = run("transfer", "--json", "here", "-")
    assert (outcome.status, outcome.out) == (ExitCode.USAGE, "")


def test_a_wrong_token(url: Url, served: Path) -> None:
    (served / "a").write_text("secret")
    outcome = run("ls", url(), env={"FSMUX_TOKEN": "wrong-token-0123456789abcdefghij"})
    assert outcome.status == 6
    assert "token" in outcome.sentence
    assert outcome.out == ""


def test_no_token(url: Url) -> None:
    outcome = run("ls", url(), env={"FSMUX_TOKEN": ""})
    assert outcome.status == 6
    assert "token" in outcome.sentence


def test_a_token_file_that_others_may_read(url: Url, there: Path) -> None:
    (there / "token").write_text("some-token-0123456789abcdefghij\n")
    (there / "token").chmod(0o644)
    outcome = run("ls", "--token-file", there / "token", url())
    assert outcome.status == 6
    assert "token" in outcome.sentence


@pytest.mark.parametrize("command", ["transfer", "ls", "stat", "rm"])
def test_a_name_that_is_not_on_the_server(url: Url, there: Path, command: str) -> None:
    target = (there / "x",) if command == "transfer" else ()
    outcome = run(command, url("missing/file"), *target)
    assert outcome.status == 4
    assert "missing/file" in outcome.sentence
    assert visible(there) == set()


def test_a_source_that_is_not_here(url: Url, served: Path, there: Path) -> None:
    outcome = run("transfer", there / "missing", url("x"))
    assert outcome.status == 4
    assert "missing" in outcome.sentence
    assert visible(served) == set()


@pytest.mark.parametrize("path", ["../outside", "a/../../outside", "%2e%2e/outside"])
def test_a_path_with_dots_is_refused_before_it_is_sent(url: Url, served: Path, there: Path, path: str) -> None:
    (served.parent / "outside").write_text("secret")
    outcome = run("transfer", url(path), there / "x")
    assert outcome.status == 2
    assert ".." in outcome.sentence
    assert visible(there) == set()


@pytest.mark.parametrize("through", ["a link to the file", "a link to the directory"])
def test_a_link_does_not_lead_out_of_the_root(url: Url, served: Path, there: Path, through: str) -> None:
    (served.parent / "outside").write_text("secret")
    (served / "file").symlink_to("../outside")
    (served / "directory").symlink_to("..")
    path = "file/" if through == "a link to the file" else "directory/outside"
    outcome = run("transfer", url(path), there / "x")
    assert outcome.status == 6
    assert outcome.sentence
    assert visible(there) == set()
    (there / "own").write_text("mine")
    written = run("transfer", there / "own", url("directory/outside"))
    assert written.status == 6
    assert (served.parent / "outside").read_text() == "secret"


def test_a_link_that_leads_out_is_replaced_and_not_followed_by_an_upload(url: Url, served: Path, there: Path) -> None:
    outside = served.parent / "outside"
    outside.write_text("secret")
    (served / "name").symlink_to("../outside")
    (there / "own").write_text("mine")
    run("transfer", there / "own", url("name"))
    assert outside.read_text() == "secret"


def test_what_fsmux_keeps_for_resuming_cannot_be_had(url: Url, served: Path, there: Path) -> None:
    (served / ".fsmux").mkdir()
    (served / ".fsmux/x.part").write_text("of somebody else")
    assert run("transfer", url(".fsmux/x.part"), there / "x").status == 6
    assert run("rm", "-r", url(".fsmux")).status == 6
    assert (served / ".fsmux/x.part").exists()


def test_a_server_that_is_read_only(served: Path, there: Path) -> None:
    (there / "a").write_text("a")
    with fsmux_server(served, write=False) as server:
        outcome = run("transfer", there / "a", Url(server.address)("a"))
        assert outcome.status == 6
        assert "read-only" in outcome.sentence
        assert run("rm", Url(server.address)("a")).status == 6
    assert visible(served) == set()


def test_an_upload_to_a_full_disk_fails_alone(small_disk: Path, there: Path) -> None:
    (there / "large").write_bytes(os.urandom(2 * SMALL_DISK))
    (there / "small").write_bytes(b"fits")
    with fsmux_server(small_disk) as server:
        url = Url(server.address)
        outcome = run("transfer", there / "large", url("large"))
        assert outcome.status == 8
        assert "space" in outcome.sentence
        assert visible(small_disk) == set()
        good("transfer", there / "small", url("small"))
        assert (small_disk / "small").read_bytes() == b"fits"


def test_a_download_to_a_full_disk(url: Url, served: Path, small_disk: Path) -> None:
    (served / "large").write_bytes(os.urandom(2 * SMALL_DISK))
    outcome = run("transfer", url("large"), small_disk / "large")
    assert outcome.status == 8
    assert "space" in outcome.sentence
    assert visible(small_disk) == set()


def test_a_port_that_is_in_use(server: Server, served: Path) -> None:
    outcome = run("serve", served, "--listen", server.address)
    assert outcome.status == 2
    assert server.address in outcome.sentence
    assert "in use" in outcome.sentence


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    outcome = run("serve", tmp_path / "missing", "--listen", "127.0.0.1:0")
    assert outcome.status == 4
    assert "missing" in outcome.sentence


def test_listening_to_the_world_in_plaintext_must_be_asked_for(served: Path) -> None:
    outcome = run("serve", served, "--listen", "0.0.0.0:0")
    assert outcome.status == 2
    assert "--plaintext" in outcome.sentence


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    outcome = run("ls", f"fsmux://{address}/")
    assert outcome.status == 5
    assert address in outcome.sentence


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH"),
        (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "HTTP"),
        (b"220 mail.example.org ESMTP ready\r\n", ""),
        (b"FSMX\x63" + bytes(60), "version"),
    ],
)
def test_a_peer_that_speaks_something_else(answer: bytes, named: str) -> None:
    with impostor(answer) as address:
        outcome = run("ls", f"fsmux://{address}/")
    assert outcome.status == 9
    assert named.lower() in outcome.sentence.lower()


def test_a_peer_that_hangs_up() -> None:
    with impostor(b"", waits=False) as address:
        outcome = run("ls", f"fsmux://{address}/")
    assert outcome.status == 5
    assert outcome.sentence


def test_a_peer_that_says_nothing() -> None:
    with impostor(b"") as address:
        outcome = run("ls", "--timeout", "0.5", f"fsmux://{address}/")
    assert outcome.status == 5
    assert outcome.sentence


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01\x02\x00", os.urandom(4096), b""])
def test_a_server_lives_on_after_a_stranger(server: Server, url: Url, served: Path, said: bytes) -> None:
    (served / "a").write_text("a")
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), 10) as stranger:
        stranger.sendall(said)
        if said:
            while stranger.recv(65536):  # its HELLO and what it says of ours, until it closes
                pass
    assert good("ls", url()).out == "a\n"


def test_a_directory_where_a_file_should_be(url: Url, served: Path, there: Path) -> None:
    (served / "tree/name").mkdir(parents=True)
    (served / "tree/name/inside").write_text("kept")
    (there / "tree").mkdir()
    (there / "tree/name").write_text("a file")
    (there / "tree/other").write_text("other")
    outcome = run("transfer", f"{there}/tree/", url("tree"))
    assert outcome.status == 3
    assert "name" in outcome.sentence
    assert "directory" in outcome.sentence
    assert (served / "tree/name/inside").read_text() == "kept"
    assert (served / "tree/other").read_text() == "other", "the rest goes on"


def test_a_file_where_a_directory_should_be(url: Url, served: Path, there: Path) -> None:
    (served / "tree/name").mkdir(parents=True)
    (served / "tree/name/inside").write_text("x")
    (served / "tree/other").write_text("other")
    (there / "tree").mkdir()
    (there / "tree/name").write_text("kept")
    outcome = run("transfer", url("tree/"), there / "tree")
    assert outcome.status == 3
    assert "name" in outcome.err
    assert "Traceback" not in outcome.err
    assert (there / "tree/name").read_text() == "kept"
    assert (there / "tree/other").read_text() == "other"


def test_both_sides_local(there: Path) -> None:
    (there / "a").write_text("a")
    outcome = run("transfer", there / "a", there / "b")
    assert outcome.status == 2
    assert outcome.sentence


def test_several_sources_to_one_file(url: Url, served: Path, there: Path) -> None:
    for name in "ab":
        (there / name).write_text(name)
    (served / "target").write_text("kept")
    outcome = run("transfer", there / "a", there / "b", url("target"))
    assert outcome.status == 2
    assert outcome.sentence
    assert (served / "target").read_text() == "kept"


def test_special_files_are_left_out_with_a_warning(url: Url, served: Path, there: Path) -> None:
    tree = there / "tree"
    tree.mkdir()
    (tree / "a").write_text("a")
    os.mkfifo(tree / "pipe")
    outcome = good("transfer", f"{tree}/", url("tree"))
    assert "pipe" in outcome.err
    assert visible(served / "tree") == {"a"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_fails_alone(url: Url, served: Path, there: Path) -> None:
    tree = there / "tree"
    tree.mkdir()
    (tree / "a").write_text("a")
    (tree / "locked").write_text("x")
    (tree / "locked").chmod(0)
    outcome = run("transfer", f"{tree}/", url("tree"))
    assert outcome.status == 3
    assert "locked" in outcome.sentence
    assert visible(served / "tree") == {"a"}
    assert run("transfer", tree / "locked", url("locked")).status == 6


def test_names_that_could_be_taken_for_the_reserved_one_are_told_of(url: Url, served: Path, there: Path) -> None:
    names = ["fsmux~1", ".Fsmux", "fsmux:notes", "sub/.fsmux.", "sub/FSMUX~2/deep", "fsmux", "sub/fsmux.txt"]
    for place in (there / "tree", served / "tree"):
        for name in names:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text("precious")
    for words, target in (
        ((f"{there}/tree/", url("copy")), served / "copy"), ((url("tree"), f"{there}/got/"), there / "got/tree"),
    ):  # fmt: skip
        for options in ((), ("--delete",), ("-n",)):
            outcome = run("transfer", *options, *words)
            assert outcome.status == 3, outcome
            lines = [line for line in outcome.err.splitlines() if "reserved name .fsmux; rename it" in line]
            assert [line.partition(": ")[2].split(":")[0] for line in lines] == [".", "sub"]
            assert all(word in lines[0] for word in (".Fsmux", "fsmux:notes", "fsmux~1"))
            assert all(word in lines[1] for word in (".fsmux.", "FSMUX~2"))
        assert visible(target) == {"fsmux", "sub", "sub/fsmux.txt"}


@pytest.mark.parametrize("words", [("transfer", "--json"), ("transfer", "-n"), ("ls",)], ids=["json", "plan", "list"])
def test_output_that_finds_no_room_is_told_of_in_a_sentence(
    url: Url, served: Path, there: Path, words: tuple[str, ...]
) -> None:
    for number in range(100):
        (served / f"{number:0100d}").write_bytes(b"x")
    more = (there / "copy",) if "transfer" in words else ()
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*FSMUX, *words, url(), *more], stdout=full, stderr=subprocess.PIPE, env=environment(), timeout=DEADLINE,
            text=True, check=False,
        )  # fmt: skip
    told = [line for line in done.stderr.splitlines() if line.startswith("fsmux")]
    assert told[0].startswith("fsmux: stdout: no space left"), done.stderr
    assert (len(told), done.returncode) == (1, ExitCode.SPACE)


@pytest.mark.parametrize("command", ["ls", "stat"])
def test_with_json_what_is_asked_for_and_not_there_is_an_object(url: Url, command: str) -> None:
    outcome = run(command, "--json", url("nothing"))
    assert outcome.status == ExitCode.SOURCE
    (event,) = outcome.events
    assert (event["event"], event["code"], event["message"]) == ("error", "NOT_FOUND", outcome.sentence)
