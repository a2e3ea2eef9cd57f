"""The server as a whole: who gets in, what the others hear, how it starts and stops."""

from __future__ import annotations

import errno
import logging
import os
import resource
import shutil
import socket
import sys
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from msgspec.structs import replace

import fsmux
from fsmux import events
from fsmux.auth import Keys, User
from fsmux.errors import (
    AccessError,
    AuthError,
    ConnectFailed,
    ErrorCode,
    FsmuxError,
    InternalError,
    NotADirectory,
    NotFound,
    RefusedError,
    UsageError,
    VersionMismatch,
)
from fsmux.files.root import Root
from fsmux.limits import MIB
from fsmux.wire.frames import Cmd, Flags, Frame
from fsmux.wire.messages import Hello, List, Ping, Pong, Stat, decode
from tests.mux.kit import HELLO, RawPeer, as_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fsmux.events import Event

DEADLINE = 20.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What is served."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "file").write_bytes(b"content")
    return tmp_path / "root"


class Running:
    """A server that runs, and what it said."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.url = f"fsmux://{address}" if not address.startswith("unix:") else f"fsmux+unix://{address[5:]}"
        self.events: list[Event] = []

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def raw(self) -> RawPeer:
        host, _, port = self.address.rpartition(":")
        return RawPeer(await trio.open_tcp_stream(host, int(port)))


@asynccontextmanager
async def running(root: Path, **options: Any) -> AsyncIterator[Running]:
    told: list[Event] = []
    options.setdefault("listen", "127.0.0.1:0")
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:

            async def serve(task_status: trio.TaskStatus[fsmux.Listening]) -> None:
                await fsmux.serve(root, observer=told.append, task_status=task_status, **options)

            listening = await nursery.start(serve)
            server = Running(listening.addresses[0])
            server.events = told
            yield server
            nursery.cancel_scope.cancel()


async def test_it_says_where_it_listens_and_who_came(root: Path) -> None:
    async with running(root) as server:
        async with fsmux.connect(server.url) as client:
            assert (await client.stat("file")).size == 7
        while not server.of(events.ConnectionClosed):
            await trio.lowlevel.checkpoint()
        assert [type(event) for event in server.events] == [
            events.ConnectionOpened, events.Authenticated, events.ConnectionClosed,
        ]  # fmt: skip
        assert server.events[-1].reason == ""  # type: ignore[attr-defined]


async def test_a_unix_socket_is_made_replaced_and_removed(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    for _ in range(2):
        async with running(root, listen=f"unix:{path}") as server:
            assert path.stat().st_mode & 0o777 == 0o600
            async with fsmux.connect(server.url) as client:
                await client.stat("file")
            with pytest.raises(BaseExceptionGroup) as caught:
                async with running(root, listen=f"unix:{path}"):
                    pass
            assert caught.group_contains(UsageError, match="cannot listen")
        assert not path.exists()
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(str(path))


async def test_a_file_is_no_stale_socket(root: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"x")
    with pytest.raises(UsageError, match="cannot listen"):
        await fsmux.serve(root, listen=f"unix:{tmp_path / 'precious'}")
    assert (tmp_path / "precious").read_bytes() == b"x"


@pytest.mark.parametrize(("path", "error"), [("nowhere", NotFound), ("root/file", NotADirectory)])
async def test_a_root_that_cannot_be_served(root: Path, tmp_path: Path, path: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        await fsmux.serve(tmp_path / path)


async def test_options_that_contradict_each_other(root: Path) -> None:
    with pytest.raises(UsageError, match="not both"):
        await fsmux.serve(root, token="x" * 32, users={})
    with pytest.raises(UsageError, match="nobody"):
        await fsmux.serve(root, users={})
    with pytest.raises(UsageError):
        await fsmux.serve(root, listen="nonsense:99999999")


# ---- who gets in --------------------------------------------------------------------------------------------------


async def test_a_token_lets_in_and_another_does_not(root: Path) -> None:
    token = fsmux.make_token()
    async with running(root, token=token) as server:
        async with fsmux.connect(server.url, token=token) as client:
            assert (await client.stat("file")).size == 7
        for wrong in (fsmux.make_token(), None):
            with pytest.raises(AuthError) as caught:
                async with fsmux.connect(server.url, token=wrong):
                    raise AssertionError
            assert token not in str(caught.value)
        async with fsmux.connect(server.url, token=token) as client:  # and the server goes on
            await client.stat("file")


async def test_before_authentication_nothing_is_to_be_had(root: Path) -> None:
    async with running(root, token=fsmux.make_token()) as server:
        for item in (
            as_bytes(Stat((b"file",)), 1),
            as_bytes(Ping(1)),
            as_bytes(Frame(Cmd.AUTH, 0, bytes(5000))),
            as_bytes(Frame(Cmd.AUTH, 0, b"\x0a\x05PLAIN")),
            as_bytes(Frame(Cmd.DATA, 1, b"x")),
        ):
            peer = await server.raw()
            await peer.greet()
            await peer.send(item)
            frames = await peer.rest()
            assert {frame.cmd for frame in frames} <= {Cmd.HELLO, Cmd.AUTH, Cmd.GOAWAY}
            await peer.stream.aclose()
        assert not server.of(events.Authenticated)


async def test_versions_that_do_not_meet(root: Path) -> None:
    async with running(root) as server:
        peer = await server.raw()
        await peer.send(Hello(min_version=7, max_version=9, max_streams=1))
        last = (await peer.rest())[-1]
        assert last.cmd == Cmd.GOAWAY
        assert decode(last.cmd, last.payload).code == ErrorCode.VERSION  # type: ignore[arg-type,union-attr]
        await peer.stream.aclose()


async def test_a_client_meets_another_kind_of_server() -> None:
    for answer in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.9\r\n", b"\x15\x03\x01\x00\x02\x02\x46"):
        async with trio.open_nursery() as nursery:

            async def other(stream: trio.SocketStream, answer: bytes = answer) -> None:
                await stream.send_all(answer)
                await stream.receive_some(1000)

            listeners = await nursery.start(partial(trio.serve_tcp, other, 0, host="127.0.0.1"))
            port = listeners[0].socket.getsockname()[1]
            with trio.fail_after(DEADLINE), pytest.raises(VersionMismatch, match="does not speak fsmux"):
                async with fsmux.connect(f"fsmux://127.0.0.1:{port}"):
                    raise AssertionError
            nursery.cancel_scope.cancel()


async def test_nobody_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConnectFailed, match=f"127.0.0.1:{port}"):
        async with fsmux.connect(f"fsmux://127.0.0.1:{port}"):
            raise AssertionError


async def test_garbage_does_not_disturb_the_others(root: Path) -> None:
    async with running(root) as server, fsmux.connect(server.url) as client:
        for garbage in (b"", b"\0" * 100, os.urandom(300), b"GET / HTTP/1.1\r\n\r\n", as_bytes(HELLO)[:-3]):
            peer = await server.raw()
            await peer.stream.send_all(garbage)
            if isinstance(peer.stream, trio.SocketStream):
                await peer.stream.send_eof()
            await peer.rest()
            await peer.stream.aclose()
            assert (await client.stat("file")).size == 7


# ---- what the others hear -----------------------------------------------------------------------------------------


async def test_a_bug_is_told_to_the_log_and_not_to_the_peer(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError(f"in {root}, of all places")

    async with running(root) as server, fsmux.connect(server.url) as client:
        monkeypatch.setattr(Root, "stat", broken)
        with caplog.at_level(logging.CRITICAL + 1, "fsmux.server"), pytest.raises(InternalError) as caught:
            await client.stat("file")
        assert str(root) not in str(caught.value)
        assert "RuntimeError" not in str(caught.value)
        monkeypatch.undo()
        assert (await client.stat("file")).size == 7
        (failed,) = server.of(events.RequestFailed)
        assert (failed.request, failed.code) == ("STAT", "INTERNAL")


async def test_no_sentence_names_the_place_of_the_root(root: Path) -> None:
    (root / "directory").mkdir()
    (root / "out").symlink_to("/etc")
    async with running(root, write=True) as server, fsmux.connect(server.url) as client:

        async def entries(path: str) -> None:
            async with client.list(path) as found:
                async for _ in found:
                    pass

        async def opened(path: str, **options: bool) -> None:
            async with client.open(path, **options):
                pass

        attempts = [
            lambda: client.stat("nowhere"),
            lambda: client.stat("file/below"),
            lambda: client.stat("out/passwd"),
            lambda: client.stat((b"x" * 255, b"y")),
            lambda: entries("nowhere"),
            lambda: entries("file"),
            lambda: entries("out"),
            lambda: opened("directory"),
            lambda: opened("nowhere"),
            lambda: opened("out/passwd", write=True),
            lambda: client.mkdir("directory"),
            lambda: client.mkdir("a/b/c"),
            lambda: client.rename("nowhere", "x"),
            lambda: client.rename("file", "directory"),
            lambda: client.remove("nowhere"),
            lambda: client.remove("."),
            lambda: client.symlink("directory", b"x"),
            lambda: client.download("nowhere", root.parent / "x"),
        ]
        for number, attempt in enumerate(attempts):
            with pytest.raises(FsmuxError) as caught:
                await attempt()
            assert str(root) not in str(caught.value), number
            assert "Traceback" not in str(caught.value)
            assert "\n" not in str(caught.value)
        assert (root / "file").read_bytes() == b"content"


async def test_a_directory_that_is_not_empty_needs_to_be_meant(root: Path) -> None:
    (root / "d" / "e").mkdir(parents=True)
    async with running(root, write=True) as server, fsmux.connect(server.url) as client:
        with pytest.raises(FsmuxError):
            await client.remove("d")
        await client.remove("d", recursive=True)
        assert not (root / "d").exists()


async def test_users_have_roots_and_rights_of_their_own(root: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    token = fsmux.make_token()
    users = {
        "reader": User("reader", Keys.from_token("reader", token), read_only=True),
        "writer": User("writer", Keys.from_token("writer", token), root=str(tmp_path / "other")),
    }
    async with running(root, users=users, write=True) as server:
        url = server.url.replace("fsmux://", "fsmux://reader@")
        async with fsmux.connect(url, token=token) as client:
            assert (await client.stat("file")).size == 7
            with pytest.raises(AccessError, match="its users file lets this user read only"):
                await client.mkdir("new")
        async with fsmux.connect(url.replace("reader", "writer"), token=token) as client:
            with pytest.raises(NotFound):
                await client.stat("file")
            await client.mkdir("new")
    assert (tmp_path / "other" / "new").is_dir()


# ---- how it stops -------------------------------------------------------------------------------------------------


async def test_stopping_tells_the_clients(root: Path) -> None:
    async with running(root) as server:
        peer = await server.raw()
        await peer.greet()
        await peer.until(Cmd.HELLO)
        await peer.send(Ping(5))
        assert decode(Cmd.PONG, (await peer.until(Cmd.PONG)).payload) == Pong(5)  # type: ignore[arg-type]
    frames = await peer.rest()
    assert frames[-1].cmd == Cmd.GOAWAY
    await peer.stream.aclose()


async def test_stopping_in_the_midst_of_an_upload_keeps_what_came(root: Path, tmp_path: Path) -> None:
    data = os.urandom(24 * 2**20)
    (tmp_path / "big").write_bytes(data)
    seen = trio.Event()

    def look(event: Event) -> None:
        if isinstance(event, events.FileProgress):
            seen.set()

    async with running(root, write=True) as server, trio.open_nursery() as nursery:

        async def upload() -> None:
            try:
                async with fsmux.connect(server.url) as client:
                    await client.upload(tmp_path / "big", "big", observer=look, bwlimit=30 * 2**20, chunk_size=2**18)
            except FsmuxError:
                pass

        nursery.start_soon(upload)
        await seen.wait()
        nursery.cancel_scope.cancel()
    assert not (root / "big").exists()
    async with running(root, write=True) as server, fsmux.connect(server.url) as client:
        summary = await client.upload(tmp_path / "big", "big", chunk_size=2**18)
        assert summary.bytes_sent + summary.bytes_resumed == len(data)
    assert (root / "big").read_bytes() == data
    assert not (root / ".fsmux").exists()


FULL_DISK = """
import os, sys, trio, fsmux
from pathlib import Path
import subprocess

place = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place / "small")], check=True)
(place / "big").write_bytes(os.urandom(8 << 20))
(place / "fits").write_bytes(b"x" * 1000)

async def main():
    async with trio.open_nursery() as nursery:
        serve = lambda task_status: fsmux.serve(
            place / "small", listen="127.0.0.1:0", write=True, task_status=task_status)
        listening = await nursery.start(serve)
        seen = []
        async with fsmux.connect("fsmux://" + listening.addresses[0]) as client:
            summary = await client.upload(place / "big", "big", observer=seen.append)
            assert summary.failed == 1, seen
            print([event.code for event in seen if hasattr(event, "code")][0])
            print([event.message for event in seen if hasattr(event, "code")][0])
            summary = await client.upload(place / "fits", "fits", observer=seen.append)
            assert not summary.failed, seen
        nursery.cancel_scope.cancel()
    print(sorted(path.name for path in (place / "small").iterdir() if path.name != ".fsmux"))

trio.run(main)
"""


async def test_a_full_disk(tmp_path: Path) -> None:
    """In a mount namespace of its own, so that nothing of it is seen outside."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs to mount a small file system: run as root, with unshare(1)")
    (tmp_path / "small").mkdir()
    command = ["unshare", "-m", sys.executable, "-c", FULL_DISK, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = await trio.run_process(
        command, check=False, capture_stdout=True, capture_stderr=True, env=environment
    )  # fmt: skip
    if b"mount" in done.stderr and b"denied" in done.stderr:
        pytest.skip("may not mount here")
    assert done.returncode == 0, done.stderr.decode()
    code, message, names = done.stdout.decode().splitlines()
    assert code == "NO_SPACE"
    assert "no space" in message
    assert names == "['fits']"


async def test_a_client_that_reads_nothing_ends_its_own_connection_and_no_other(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handlers that meet a connection which takes no more answers fail with it, and not the server."""
    monkeypatch.setattr("fsmux.mux.outbox.MAX_QUEUED_CONTROL", MIB)
    monkeypatch.setattr("fsmux.mux.outbox.REQUESTS_SPARE", MIB // 2)
    async with running(root) as server, fsmux.connect(server.url) as client:
        peer = await server.raw()
        await peer.send(HELLO)
        name, number = (b"x" * 250,) * 12, 1
        while not server.of(events.ConnectionClosed):
            with suppress(trio.BrokenResourceError):
                await peer.send(*(as_bytes(Stat(name), number + 2 * index, Flags.END_STREAM) for index in range(100)))
            number += 200
            await client.stat("file")
        (left,) = server.of(events.ConnectionClosed)
        assert left.reason == "the peer does not read what it is sent"
        await peer.stream.aclose()


async def test_a_crowd_that_says_nothing_keeps_nobody_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsmux.server.MAX_STRANGERS", 5)
    async with running(root, token="a-token-that-is-long-enough") as server:
        silent = [await server.raw() for _ in range(20)]
        async with fsmux.connect(server.url, token="a-token-that-is-long-enough") as client:
            assert (await client.stat("file")).size == 7
            while len(server.of(events.ConnectionClosed)) < 16:
                await client.stat("file")
        reasons = {one.reason for one in server.of(events.ConnectionClosed)[:16]}
        assert reasons == {"it did not say who it is while others wanted to come in"}
        for peer in silent:
            await peer.stream.aclose()


async def test_more_connections_than_it_takes_are_closed_and_told_of(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsmux.server.MAX_CONNECTIONS", 1)
    async with running(root) as server, fsmux.connect(server.url) as client:
        with pytest.raises(FsmuxError):
            async with fsmux.connect(server.url):
                pass
        (left,) = server.of(events.ConnectionClosed)
        assert left.reason == "this server takes 1 connections at once"
        assert (await client.stat("file")).size == 7


async def test_a_server_that_has_no_descriptors_left_says_so_once_and_goes_on(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept, failures = trio.SocketListener.accept, [errno.EMFILE, errno.ENFILE, errno.ENOMEM]

    async def short(listener: trio.SocketListener) -> trio.SocketStream:
        if failures:
            await trio.lowlevel.checkpoint()
            raise OSError(number := failures.pop(0), os.strerror(number))
        return await accept(listener)

    monkeypatch.setattr(trio.SocketListener, "accept", short)
    async with running(root) as server, fsmux.connect(server.url) as client:
        assert (await client.stat("file")).size == 7
        (warned,) = server.of(events.Warned)
        assert warned.message == "nobody else can come in: too many open files"


@pytest.mark.parametrize("options", [{"listen": "0.0.0.0:0"}, {"durability": "none"}])
async def test_what_a_server_must_not_be_is_refused(root: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"add plaintext=True if you trust|Durability\.NONE"):
        await fsmux.serve(root, **options)


@pytest.mark.parametrize("token", ["", "short", "with space in the midst of it"])
async def test_a_token_that_is_none_or_could_be_guessed_protects_nothing(root: Path, token: str) -> None:
    with pytest.raises(AuthError, match="token"):
        await fsmux.serve(root, listen="127.0.0.1:0", token=token)


async def test_a_path_in_the_url_of_a_connection_is_not_ignored(root: Path) -> None:
    async with running(root) as server:
        with pytest.raises(UsageError, match="a connection is to a server"):
            async with fsmux.connect(f"{server.url}/file"):
                pass
        async with fsmux.connect(f"{server.url}/") as client:
            assert (await client.stat("file")).size == 7


async def test_one_connection_leaves_descriptors_to_others(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsmux.context._most_handles", lambda: 3)
    async with running(root) as server, AsyncExitStack() as stack:
        client = await stack.enter_async_context(fsmux.connect(server.url))
        handles = [await stack.enter_async_context(client.open("file")) for _ in range(3)]
        with pytest.raises(RefusedError, match="3 files open"):
            async with client.open("file"):
                pass
        async with fsmux.connect(server.url) as another, another.open("file") as file:
            assert await file.pread(3, 0) == await handles[0].pread(3, 0)


async def test_answers_that_nobody_takes_are_few(root: Path) -> None:
    """A client that grants no credit has the server hold a bounded part of what it asks for."""
    for number in range(1000):
        (root / f"{number:0200}").touch()
    async with running(root) as server, fsmux.connect(server.url) as client:
        peer = await server.raw()
        await peer.send(replace(HELLO, initial_credit=0, eager_credit=0))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await peer.send(*(as_bytes(List(()), number, Flags.END_STREAM) for number in range(1, 2000, 2)))
        for _ in range(20):
            assert (await client.stat("file")).size == 7
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150 * 1024
        await peer.stream.aclose()


@pytest.mark.parametrize(
    "given",
    [{"url": None}, {"url": b"fsmux://127.0.0.1"}, {"token": b"bytes"}, {"timeout": -1}, {"timeout": float("nan")}],
)
async def test_what_connect_cannot_take_is_said_in_a_sentence(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        async with fsmux.connect(**{"url": "fsmux://127.0.0.1:1", **given}):
            pass


async def test_what_a_client_cannot_take_is_said_in_a_sentence(root: Path, tmp_path: Path) -> None:
    async with running(root) as server, fsmux.connect(server.url) as client:
        for path in (None, b"file", Path("file"), ["file"], ("file",)):
            with pytest.raises(UsageError, match="a path at the server"):
                await client.stat(path)
            with pytest.raises(UsageError, match="a path at the server"):
                await client.download(path, tmp_path / "there")
        for rate in (0, -5):
            with pytest.raises(UsageError, match="rate"), client.limited(rate):
                pass
        summary = await client.download("file", os.fsencode(tmp_path / "there"))
        assert (summary.files, (tmp_path / "there").read_bytes()) == (1, b"content")
