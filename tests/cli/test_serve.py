"""What ``fsmux serve`` decides and says before and around the server."""

from __future__ import annotations

import io
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest

from fsmux import events
from fsmux.auth import Keys, User
from fsmux.cli import serve
from fsmux.cli.log import Log
from fsmux.cli.serve import Access, ServeOptions
from fsmux.errors import FsmuxError
from fsmux.urls import parse_listen

from .test_app import call, private

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "0123456789abcdefghij"
OPTIONS = ServeOptions("/srv", "127.0.0.1:0", None, False, None, None, False, False, "batch", "text", 0)


def options(**changes: Any) -> ServeOptions:
    from msgspec.structs import replace

    return replace(OPTIONS, **changes)


def said(changed: ServeOptions, access: Access, *addresses: str) -> str:
    err = io.StringIO()
    log = Log(err, changed.verbosity)
    serve.announce(addresses or ("127.0.0.1:4711",), changed, access, log)
    log.close()
    return err.getvalue()


def test_the_command_to_paste() -> None:
    text = said(options(), Access("tok", made=True))
    assert "serving /srv read-only on 127.0.0.1:4711" in text
    assert "FSMUX_TOKEN=tok fsmux transfer fsmux://127.0.0.1:4711/ ." in text
    assert "upload" not in text
    text = said(options(write=True, token_file="a b"), Access("tok"))
    assert "fsmux transfer --token-file 'a b' FILE fsmux://127.0.0.1:4711/" in text
    assert "tok " not in text.replace("--token", "")
    assert "everybody" in said(options(), Access())
    assert "fsmux+unix:///run/x.sock:/ ." in said(options(), Access(), "unix:/run/x.sock")
    assert "'fsmux://[::1]:9/' ." in said(options(), Access(), "[::1]:9")
    assert said(options(verbosity=-1, write=True), Access("tok")) == ""


def test_a_token_that_was_made_is_told_even_by_a_quiet_server() -> None:
    text = said(options(verbosity=-1), Access("tok", made=True))
    assert text == "  to download:  FSMUX_TOKEN=tok fsmux transfer fsmux://127.0.0.1:4711/ .\n"


def test_the_command_to_paste_names_the_user() -> None:
    def user(name: str) -> User:
        return User(name, Keys.from_token(name, TOKEN))

    one, two = {"bob": user("bob")}, {"al ice": user("al ice"), "bob": user("bob")}
    assert "fsmux transfer fsmux://bob@127.0.0.1:4711/ ." in said(options(), Access(users=one))
    assert "FILE fsmux://USER@127.0.0.1:4711/" in said(options(write=True), Access(users=two))
    assert "fsmux+unix://bob@/run/x.sock:/ ." in said(options(), Access(users=one), "unix:/run/x.sock")


def test_a_wildcard_is_not_what_a_client_types() -> None:
    assert serve.client_url(parse_listen("0.0.0.0:1")).host != "0.0.0.0"


def test_the_port_file(tmp_path: Path) -> None:
    path = tmp_path / "port"
    said(options(port_file=str(path)), Access())
    assert path.read_text() == "127.0.0.1:4711\n"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FsmuxError, match="no such file"):
        said(options(port_file=str(tmp_path / "missing" / "port")), Access())
    (tmp_path / "directory").mkdir()
    with pytest.raises(FsmuxError, match="is a directory"):
        said(options(port_file=str(tmp_path / "directory")), Access())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["directory", "port"], "and nothing temporary"


def test_a_server_that_cannot_listen_leaves_the_port_file_of_the_one_that_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port_file = tmp_path / "port"
    with socket.create_server(("127.0.0.1", 0)) as running:
        address = f"127.0.0.1:{running.getsockname()[1]}"
        port_file.write_text(f"{address}\n")
        for root, listen in ((tmp_path, address), (tmp_path / "missing", "127.0.0.1:0")):
            assert call("serve", "-q", "--no-auth", "--listen", listen, "--port-file", str(port_file), str(root)) != 0
            assert port_file.read_text() == f"{address}\n"
    assert "in use" in capsys.readouterr().err


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Calls of the server, which ends at once instead of serving."""
    calls: list[dict[str, Any]] = []

    async def fake(root: str, *, task_status: Any, **settings: Any) -> None:
        from fsmux.server import Listening

        calls.append({"root": root, **settings})
        task_status.started(Listening(("127.0.0.1:1",)))

    monkeypatch.setattr("fsmux.server.serve", fake)
    return calls


def test_who_is_let_in(served: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token_file = private(tmp_path / "token", TOKEN)
    users = private(tmp_path / "users.toml", '[users.bob]\ntoken_file = "token"\n')
    assert call("serve", "-q", ".") == 0
    assert len(served[-1]["token"]) == 32
    call("serve", "-q", "--no-auth", ".")
    assert (served[-1]["token"], served[-1]["users"]) == (None, None)
    call("serve", "-q", "--token-file", token_file, ".")
    assert served[-1]["token"] == TOKEN
    call("serve", "-q", "--users", users, ".")
    assert list(served[-1]["users"]) == ["bob"]
    monkeypatch.setenv("FSMUX_TOKEN", f"env-{TOKEN}")
    call("serve", "-q", ".")
    assert served[-1]["token"] == f"env-{TOKEN}"
    call("serve", "-q", "--no-auth", ".")
    assert served[-1]["token"] is None, "a flag beats the environment"


def test_beyond_this_machine_only_if_told_so(served: list[dict[str, Any]]) -> None:
    assert call("serve", "-q", "--listen", "0.0.0.0:0", ".") == 2
    assert served == []
    assert call("serve", "-q", "--listen", "0.0.0.0:0", "--plaintext", ".") == 0
    assert call("serve", "-q", "--listen", "unix:/tmp/x", ".") == 0
    assert len(served) == 2


# ---- the log --------------------------------------------------------------------------------------------------------

STORY = (
    events.ConnectionOpened("10.0.0.1:5"),
    events.Authenticated("10.0.0.1:5", "al\x1bice"),
    events.RequestFailed("10.0.0.1:5", "GET a\nb", "NOT_FOUND", "a\nb: no such file"),
    events.FileFailed("x", "IO", "x: bad", False),
    events.ConnectionClosed("10.0.0.1:5", "alice", 1.25, "bad frame"),
)


def logged(verbosity: int, *, json_: bool = False) -> list[str]:
    err = io.StringIO()
    log = Log(err, verbosity, json=json_, clock=lambda: 1.5)
    for event in STORY:
        log(event)
    assert err.getvalue() == "", "an observer does not write"
    log.close()
    return err.getvalue().splitlines()


def test_the_log_for_people() -> None:
    assert logged(0) == [
        "1970-01-01T00:00:01.500Z 10.0.0.1:5 is al\\x1bice",
        "1970-01-01T00:00:01.500Z fsmux: x: bad",
        "1970-01-01T00:00:01.500Z 10.0.0.1:5 left after 1.2 s: bad frame",
    ]
    assert len(logged(1)) == 5
    assert all(line.isprintable() for line in logged(2))
    assert len(logged(-1)) == 1


def test_the_log_for_programs() -> None:
    objects = [json.loads(line) for line in logged(1, json_=True)]
    assert [item["event"] for item in objects] == [
        "connection_opened", "authenticated", "request_failed", "file_failed", "connection_closed",
    ]  # fmt: skip
    assert objects[2]["message"] == "a\\x0ab: no such file"
    assert all(item["time"] == "1970-01-01T00:00:01.500Z" for item in objects)
