"""What an argument means, and that printing it gives the same meaning back."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmux.errors import UsageError
from fsmux.urls import TCP, UNIX, Listen, Local, Remote, Stdio, parse, parse_listen, parse_remote


@pytest.mark.parametrize(
    ("text", "remote"),
    [
        ("fsmux://host", Remote(TCP, "", "host")),
        ("fsmux://host/", Remote(TCP, "", "host")),
        ("FSMUX://host:7/a/b", Remote(TCP, "", "host", 7, path_parts=(b"a", b"b"))),
        ("fsmux://me@host/a/b/", Remote(TCP, "me", "host", path_parts=(b"a", b"b"), trailing_slash=True)),
        ("fsmux://host//a/./b/.", Remote(TCP, "", "host", path_parts=(b"a", b"b"), trailing_slash=True)),
        ("fsmux://[::1]:7/a", Remote(TCP, "", "::1", 7, path_parts=(b"a",))),
        ("fsmux://[0:0::1]/a", Remote(TCP, "", "::1", path_parts=(b"a",))),
        ("fsmux://u@[fe80::1%25eth0]/", Remote(TCP, "u", "fe80::1%eth0")),
        ("fsmux://host/a%20b%FF%25", Remote(TCP, "", "host", path_parts=(b"a b\xff%",))),
        ("fsmux://host/a?b#c:d@e", Remote(TCP, "", "host", path_parts=(b"a?b#c:d@e",))),
        ("fsmux://a%40b@host/x", Remote(TCP, "a@b", "host", path_parts=(b"x",))),
        ("host:", Remote(TCP, "", "host")),
        ("host:a/b/", Remote(TCP, "", "host", path_parts=(b"a", b"b"), trailing_slash=True)),
        ("host:/a%20b", Remote(TCP, "", "host", path_parts=(b"a%20b",))),
        ("me@host:9:00", Remote(TCP, "me", "host", path_parts=(b"9:00",))),
        ("[::1]:a", Remote(TCP, "", "::1", path_parts=(b"a",))),
        ("me@[::1]:a", Remote(TCP, "me", "::1", path_parts=(b"a",))),
        ("10.0.0.1:.", Remote(TCP, "", "10.0.0.1")),
        ("fsmux+unix:///run/x.sock:/a/b", Remote(UNIX, port=0, socket_path="/run/x.sock", path_parts=(b"a", b"b"))),
        ("fsmux+unix:///run/x.sock", Remote(UNIX, port=0, socket_path="/run/x.sock")),
        ("fsmux+unix://me@/s%3Ax:/", Remote(UNIX, "me", port=0, socket_path="/s:x")),
    ],
)
def test_remotes(text: str, remote: Remote) -> None:
    assert parse(text) == remote
    assert parse(str(remote)) == remote


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("a", Local("a")),
        ("./a:b", Local("./a:b")),
        ("/x/a:b//", Local("/x/a:b", trailing_slash=True)),
        ("/", Local("/", trailing_slash=True)),
        (".", Local(".")),
        ("./-", Local("./-")),
        ("dir/[::1]:x", Local("dir/[::1]:x")),
        ("50%", Local("50%")),
    ],
)
def test_locals(text: str, local: Local) -> None:
    assert parse(text) == local
    assert parse(str(local)) == local


def test_the_dash_is_stdio_and_prints_as_such() -> None:
    assert parse("-") == Stdio()
    assert str(Stdio()) == "-"


@pytest.mark.parametrize(
    ("text", "contents"),
    [("a", False), ("a/", True), (".", True), ("a/..", True), ("/", True), ("h:", True), ("h:a", False),
     ("h:a/.", True)],
)  # fmt: skip
def test_what_stands_for_its_contents(text: str, contents: bool) -> None:
    endpoint = parse(text)
    assert isinstance(endpoint, Local | Remote)
    assert endpoint.is_contents is contents


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("a\0b", "NUL"),
        ("\ud800", "encoding"),
        (":x", "names no host"),
        ("fsmux:///x", "names no host"),
        ("@host:x", "before the @"),
        ("fsmux://user:secret@host/x", "token does not belong"),
        ("fsmux://user:secret@host:99/x", "token does not belong"),
        ("fsmux://::1/x", "brackets"),
        ("fsmux://[::g]/x", "not an IPv6 address"),
        ("[::1:x", "names no server"),
        ("fsmux://ho st/x", "not a host name"),
        ("fsmux://host:0/x", "not a port"),
        ("fsmux://host:65536/x", "not a port"),
        ("fsmux://host:/x", "port must follow"),
        ("fsmux://host/a/../b", ".. is not allowed"),
        ("fsmux://host/%2e%2E/b", ".. is not allowed"),
        ("host:..", ".. is not allowed"),
        ("fsmux://host/a%2Fb", "%2F"),
        ("fsmux://host/a%00", "%00"),
        ("fsmux://host/100%", "%25"),
        ("fsmux://host/%zz", "%25"),
        ("fsmux://host/" + "a" * 256, "255"),
        ("fsmux://host/" + "a/" * 256, "4095"),
        ("fsmuxs://host/x", "TLS"),
        ("http://host/x", "does not speak http"),
        ("fsmux+unix://host/x:/y", "SOCKET"),
        ("fsmux+unix:///s:y", "slash must follow"),
        ("fsmux+unix:///" + "s" * 107, "107"),
        ("fsmux://%1b[1m@host/", "not a user name"),
        ("\x1b31m:x", "not a host name"),
    ],
)
def test_mistakes_get_one_printable_sentence(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert says in str(caught.value)
    assert str(caught.value).isprintable()
    assert "secret" not in str(caught.value)


def test_a_local_path_is_no_remote() -> None:
    with pytest.raises(UsageError, match="names no server"):
        parse_remote("./a:b")


names = st.binary(min_size=1, max_size=20).filter(lambda b: b not in (b".", b"..") and not set(b) & {0, 0x2F})
users = st.text(max_size=8).filter(str.isprintable)


@given(users.filter(lambda u: ":" not in u), st.sampled_from(["h", "::1", "fe80::1%e"]), st.integers(1, 65535),
       st.lists(names, max_size=4), st.booleans())  # fmt: skip
def test_every_remote_prints_as_itself(user: str, host: str, port: int, parts: list[bytes], slash: bool) -> None:
    remote = Remote(TCP, user, host, port, path_parts=tuple(parts), trailing_slash=slash and bool(parts))
    assert parse_remote(str(remote)) == remote
    assert str(remote).isprintable()


@given(st.lists(names, min_size=1, max_size=3), st.lists(names, max_size=3))
def test_every_socket_prints_as_itself(socket: list[bytes], parts: list[bytes]) -> None:
    path = os.fsdecode(b"/" + b"/".join(socket))
    assert parse_remote(str(Remote(UNIX, port=0, socket_path=path, path_parts=tuple(parts)))).socket_path == path


@given(st.text(max_size=40) | st.text("fsmux+uni:/@[]%.-1a", max_size=40))
def test_any_text_is_an_endpoint_or_a_usage_error(text: str) -> None:
    try:
        endpoint = parse(text)
    except UsageError as error:
        assert str(error).isprintable()  # noqa: PT017  (both outcomes are right)
    else:
        assert parse(str(endpoint)) == endpoint


def test_server_and_join() -> None:
    remote = parse_remote("fsmux://me@host:7/a/b/")
    assert remote.server == parse_remote("fsmux://me@host:7/c").server
    assert remote.join((b"c",)) == parse_remote("fsmux://me@host:7/a/b/c")


@pytest.mark.parametrize(
    ("text", "listen", "loopback"),
    [
        ("127.0.0.1:9000", Listen("127.0.0.1", 9000), True),
        ("localhost:0", Listen("localhost", 0), True),
        ("[::1]:1", Listen("::1", 1), True),
        ("0.0.0.0:9000", Listen("0.0.0.0", 9000), False),
        ("example.org:1", Listen("example.org", 1), False),
        ("unix:run/x", Listen(socket_path="run/x"), True),
    ],
)
def test_addresses_to_listen_on(text: str, listen: Listen, loopback: bool) -> None:
    assert parse_listen(text) == listen
    assert parse_listen(str(listen)) == listen
    assert listen.is_loopback is loopback


@pytest.mark.parametrize("text", ["9000", "host", "host:x", "host:65536", ":9000", "::1:9000", "unix:", "unix:/a/"])
def test_no_addresses_to_listen_on(text: str) -> None:
    with pytest.raises(UsageError):
        parse_listen(text)
