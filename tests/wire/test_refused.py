"""What a message from a peer may not say is refused with the name of the field, and what it may is not."""

from __future__ import annotations

from typing import Any

import pytest

from fsmux.errors import ErrorCode, ProtocolError
from fsmux.limits import MAX_CHUNK_SIZE, MAX_CHUNKS, MAX_XATTRS, MIN_CHUNK_SIZE, XATTR_COST
from fsmux.wire import messages as m
from fsmux.wire._pb2 import fsmux_pb2
from fsmux.wire.frames import Cmd
from fsmux.wire.messages.checks import MAX_HAVES, MAX_RANGES, MAX_TEXT

from .helpers import BIG

pb: Any = fsmux_pb2  # protobuf messages are made with values that their stubs forbid


def path(*parts: bytes) -> Any:
    return pb.Path(parts=parts)


def ranges(*pairs: tuple[int, int]) -> list[Any]:
    return [pb.Extent(offset=offset, length=length) for offset, length in pairs]


IDENTITY = pb.Identity(size=5, mtime_ns=0, tag=b"")


def with_xattrs(*found: Any) -> list[Any]:
    """A group of one file."""
    return [pb.Group(names=b"a", sizes=[0], mtimes_ns=[0], modes=[0o100644], xattrs=found)]


REFUSED: list[tuple[Cmd, Any, str]] = [
    *[
        (cmd, cls(path=bad), f"{cmd.name} path")
        for bad in (
            path(b""), path(b"."), path(b".."), path(b"a", b"..", b"b"), path(b"a/b"), path(b"a\0b"), path(b"/"),
            path(b"x" * 256), path(*[b"x" * 250] * 17), path(*[b"x"] * 256),
        )
        for cmd, cls in (
            (Cmd.STAT, pb.Stat), (Cmd.LIST, pb.List), (Cmd.OPEN, pb.Open), (Cmd.MKDIR, pb.Mkdir),
            (Cmd.REMOVE, pb.Remove), (Cmd.SETATTRS, pb.SetAttrs), (Cmd.GET, pb.Get), (Cmd.PUT, pb.Put),
        )
    ],
    (Cmd.SYMLINK, pb.Symlink(path=path(b".."), target=b"x"), "SYMLINK path"),
    (Cmd.SYMLINK, pb.Symlink(path=path(b"a")), "SYMLINK target"),
    (Cmd.SYMLINK, pb.Symlink(path=path(b"a"), target=b"\0"), "SYMLINK target"),
    (Cmd.SYMLINK, pb.Symlink(path=path(b"a"), target=b"x" * 4096), "SYMLINK target"),
    (Cmd.SYMLINK, pb.Symlink(path=path(b"a"), target=b"x", attrs=pb.Attrs(kind=0)), "SYMLINK attrs"),
    (Cmd.RENAME, pb.Rename(source=path(b".."), target=path(b"a")), "RENAME source"),
    (Cmd.RENAME, pb.Rename(source=path(b"a"), target=path(b"..")), "RENAME target"),
    (Cmd.ENTRIES, pb.Entries(entries=[pb.Entry(path=path(b"..", b"x"), attrs=pb.Attrs(kind=1))]), "ENTRIES path"),
    (Cmd.ENTRIES, pb.Entries(entries=[pb.Entry(path=path(b"a"))]), "ENTRIES"),
    (Cmd.ENTRIES, pb.Entries(entries=[pb.Entry(path=path(b"a"), attrs=pb.Attrs())]), "ENTRIES attrs"),
    (Cmd.ENTRIES, pb.Entries(entries=[pb.Entry(path=path(b"a"), fault=pb.Fault(text="x" * 1025))]), "ENTRIES fault"),
    (Cmd.ATTRS, pb.Attrs(), "ATTRS"),
    (Cmd.ATTRS, pb.Attrs(kind=5), "ATTRS"),
    (Cmd.ATTRS, pb.Attrs(kind=-1), "ATTRS"),
    (Cmd.ATTRS, pb.Attrs(kind=1, size=BIG + 1), "ATTRS"),
    (Cmd.ATTRS, pb.Attrs(kind=1, mode=0o10000), "ATTRS"),
    (Cmd.ATTRS, pb.Attrs(kind=3, link_target=b"a\0"), "ATTRS"),
    (Cmd.SETATTRS, pb.SetAttrs(path=path(b"a")), "SETATTRS attrs"),
    (Cmd.MKDIR, pb.Mkdir(path=path(b"a"), mode=0o10000), "MKDIR mode"),
    (Cmd.HELLO, pb.Hello(), "HELLO versions"),
    (Cmd.HELLO, pb.Hello(min_version=2, max_version=1), "HELLO versions"),
    (Cmd.HELLO, pb.Hello(min_version=1, max_version=1, initial_credit=BIG + 1), "HELLO initial_credit"),
    (Cmd.HELLO, pb.Hello(min_version=1, max_version=1, eager_credit=BIG + 1), "HELLO eager_credit"),
    (Cmd.HELLO, pb.Hello(min_version=1, max_version=1, agent="x" * 1025), "HELLO agent"),
    (Cmd.HELLO, pb.Hello(min_version=1, max_version=1, features=["x"] * 65), "HELLO features"),
    (Cmd.HELLO, pb.Hello(min_version=1, max_version=1, features=[""]), "HELLO features"),
    (Cmd.HELLO, pb.Hello(min_version=1, max_version=1, features=["a\n"]), "HELLO features"),
    (Cmd.HELLO, pb.Hello(min_version=1, max_version=1, mechanisms=["x" * 65]), "HELLO mechanisms"),
    (Cmd.AUTH, pb.Auth(mechanism="no spaces"), "AUTH mechanism"),
    (Cmd.CREDIT, pb.Credit(grants=[pb.Grant(stream_id=0, limit=5)]), "CREDIT grants"),
    (Cmd.CREDIT, pb.Credit(grants=[pb.Grant(stream_id=1, limit=BIG + 1)]), "CREDIT grants"),
    (Cmd.RESET, pb.Fault(code=1, text="x" * 1025), "RESET text"),
    (Cmd.ERROR, pb.Fault(code=1, text="x" * 1025), "ERROR text"),
    (Cmd.GOAWAY, pb.Fault(code=1, text="x" * 1025), "GOAWAY text"),
    (Cmd.READ, pb.Read(offset=BIG, length=1), "READ"),
    (Cmd.READ, pb.Read(offset=2**64 - 1, length=2**64 - 1), "READ"),
    (Cmd.WRITE, pb.Write(offset=1, length=BIG), "WRITE"),
    (Cmd.READ_DONE, pb.ReadDone(length=BIG + 1), "READ_DONE length"),
    (Cmd.GET, pb.Get(path=path(b"a"), chunk_size=3), "GET chunk_size"),
    (Cmd.PUT, pb.Put(path=path(b"a"), durability=4), "PUT durability"),
    (Cmd.SETATTRS, pb.SetAttrs(path=path(b"a"), attrs=pb.Attrs(kind=1), durability=4), "SETATTRS durability"),
    (Cmd.SYMLINK, pb.Symlink(path=path(b"a"), target=b"x", durability=4), "SYMLINK durability"),
    (Cmd.PUT, pb.Put(path=path(b"a"), join=bytes(15)), "PUT join"),
    (Cmd.PUT, pb.Put(path=path(b"a"), streams=1025), "PUT streams"),
    (Cmd.PUT, pb.Put(path=path(b"a"), attrs=pb.Attrs()), "PUT attrs"),
    (Cmd.STORE, pb.Store(path=path(b"a"), join=bytes(17)), "STORE join"),
    (Cmd.WANT, pb.Want(held=2**62 + 1), "WANT held"),
    *[
        (Cmd.OFFER, pb.Offer(identity=IDENTITY, chunk_size=bad), "OFFER chunk_size")
        for bad in (0, 1, MIN_CHUNK_SIZE // 2, MIN_CHUNK_SIZE - 1, MIN_CHUNK_SIZE + 1, 3 * MIN_CHUNK_SIZE,
                    MAX_CHUNK_SIZE - 1, MAX_CHUNK_SIZE + 1, 2 * MAX_CHUNK_SIZE, 2**32 - 1)
    ],
    (Cmd.OFFER, pb.Offer(identity=pb.Identity(size=MAX_CHUNKS * MIN_CHUNK_SIZE + 1), chunk_size=MIN_CHUNK_SIZE),
     "OFFER chunk_size"),
    (Cmd.OFFER, pb.Offer(identity=pb.Identity(tag=b"x" * 65), chunk_size=MIN_CHUNK_SIZE), "OFFER identity"),
    (Cmd.OFFER, pb.Offer(identity=IDENTITY, chunk_size=MIN_CHUNK_SIZE, mode=0o10000), "OFFER mode"),
    *[
        (cmd, cls(**{field: ranges(*bad)}), f"{cmd.name} {field}")
        for bad in (
            [(5, 0)], [(5, 5), (0, 1)], [(5, 5), (9, 1)], [(BIG, 1)], [(BIG - 5, 6)], [(2**64 - 1, 2**64 - 1)],
            [(0, 2**64 - 1), (5, 5)],
        )
        for cmd, cls, field in ((Cmd.WANT, pb.Want, "missing"), (Cmd.KEEP, pb.Keep, "ranges"))
    ],
    (Cmd.HAVES, pb.Haves(ranges=[pb.Have(offset=0, length=5, digest=b"x" * 15)]), "HAVES digest"),
    (Cmd.HAVES, pb.Haves(ranges=[pb.Have(offset=0, length=5)]), "HAVES digest"),
    (Cmd.HAVES, pb.Haves(ranges=[pb.Have(offset=0, length=0, digest=b"x" * 16)]), "HAVES ranges"),
    (Cmd.HAVES, pb.Haves(ranges=[pb.Have(offset=i, length=1) for i in range(MAX_HAVES + 1)]), "HAVES ranges"),
    (Cmd.SPAN, pb.Span(offset=5, length=0), "SPAN"),
    (Cmd.SPAN, pb.Span(offset=BIG, length=1), "SPAN"),
    (Cmd.SPAN, pb.Span(length=1, ranges=ranges((0, 1))), "SPAN"),
    (Cmd.SPAN, pb.Span(chunks=[pb.Chunk(index=1)]), "SPAN"),
    (Cmd.SPAN, pb.Span(ranges=ranges((5, 5), (9, 1))), "SPAN ranges"),
    (Cmd.SPAN, pb.Span(holes=ranges((0, 512), (511, 512))), "SPAN holes"),
    (Cmd.SPAN, pb.Span(holes=ranges((0, 511))), "SPAN holes"),
    (Cmd.SPAN, pb.Span(holes=ranges((BIG, 512))), "SPAN holes"),
    (Cmd.SPAN, pb.Span(holes=ranges((0, 512)), chunks=[pb.Chunk()] * (MAX_RANGES + 1)), "SPAN chunks"),
    (Cmd.STAT, pb.Stat(path=path(b"a"), xattrs=3), "STAT xattrs"),
    (Cmd.WALK, pb.Walk(xattrs=3), "WALK xattrs"),
    (Cmd.LOOK, pb.Look(xattrs=3), "LOOK xattrs"),
    (Cmd.STORE, pb.Store(path=path(b"a"), xattrs=3), "STORE xattrs"),
    *[
        (cmd, cls(**{field: holder(pb.Xattrs(**bad))}), name)
        for bad in (
            {"names": [b""], "values": [b"1"]}, {"names": [b"user.a\0"], "values": [b""]},
            {"names": [b"user." + b"a" * 251], "values": [b""]},
            {"names": [b"user.b", b"user.a"], "values": [b"", b""]},
            {"names": [b"user.a", b"user.a"], "values": [b"", b""]},
            {"names": [b"user.a"], "values": [bytes(MAX_XATTRS - XATTR_COST - 5)]},
            {"names": [b"user.a"], "values": [b""], "unknown": True},
            {"names": [b"user.a"]}, {"values": [b"1"]},
        )
        for cmd, cls, field, holder, name in (
            (Cmd.ATTRS, pb.Attrs, "xattrs", lambda one: one, "ATTRS"),
            (Cmd.LISTED, pb.Listed, "groups", with_xattrs, "LISTED"),
        )
    ],
    *[
        (Cmd.LISTED, pb.Listed(groups=[
            pb.Group(names=names, sizes=[0, 0], mtimes_ns=[0, 0], modes=[0o100644, 0o100644])
        ]), "LISTED")
        for names in (b"b/a", b"a/a")
    ],
    (Cmd.LISTED, pb.Listed(groups=with_xattrs(pb.Xattrs())), "LISTED"),
    (Cmd.LISTED, pb.Listed(groups=with_xattrs(pb.Xattrs(index=1, unknown=True))), "LISTED"),
    (Cmd.LISTED, pb.Listed(groups=with_xattrs(*[pb.Xattrs(unknown=True)] * 2)), "LISTED"),
    *[
        (Cmd.PACK, pb.Pack(groups=[pb.Group(
            names=b"a/b/d", sizes=[9, 9, 0], mtimes_ns=[0] * 3, modes=[0o100644, 0o100644, 0o040755], crcs=[0] * 3,
            holed=bad,
        )]), "PACK")
        for bad in ([3], [2], [0, 0], [1, 0], [2**32 - 1])
    ],
    (Cmd.PACK, pb.Pack(groups=[pb.Group(sizes=[0], mtimes_ns=[0], modes=[0o040755], holed=[0])]), "PACK"),
    *[
        (cmd, cls(groups=[pb.Group(names=b"a", sizes=[9], mtimes_ns=[0], modes=[0o100644], holed=[0])]), cmd.name)
        for cmd, cls in ((Cmd.LISTED, pb.Listed), (Cmd.DIGEST, pb.Digest))
    ],
    *[
        (Cmd.PACK, pb.Pack(groups=[pb.Group(as_asked=True, **bad)]), "PACK")
        for bad in (
            {"names": b"a"}, {"sizes": [1]}, {"mtimes_ns": [1]}, {"modes": [0o100644]}, {"crcs": [0] * 1001},
            {"crcs": [0], "lost": [pb.Lost(index=1)]}, {"own_mode": 0o040755},
        )
    ],
    *[
        (cmd, cls(groups=[pb.Group(**{
            "names": b"a", "sizes": [0], "mtimes_ns": [0], "modes": [0o100644], "crcs": [0], "own_mode": 0o040755,
        } | bad)]), cmd.name)
        for cmd, cls, bad in (
            (Cmd.PACK, pb.Pack, {"own_mode": 0o100644}), (Cmd.PACK, pb.Pack, {"own_mode": 0o755}),
            (Cmd.PACK, pb.Pack, {"own_mode": 0o044755}), (Cmd.PACK, pb.Pack, {"act": 1}),
            (Cmd.PACK, pb.Pack, {"act": 2}), (Cmd.PACK, pb.Pack, {"names": b"", "modes": [0o040755], "crcs": []}),
            (Cmd.ASK, pb.Pack, {"crcs": []}), (Cmd.LISTED, pb.Listed, {"crcs": []}),
            (Cmd.DIGEST, pb.Digest, {"crcs": []}),
        )
    ],
    *[
        (cmd, pb.Pack(groups=[pb.Group(**{
            "act": 4, "names": b"a", "sizes": [0], "mtimes_ns": [0], "modes": [0o100644],
        } | bad)]), cmd.name)
        for cmd, bad in (
            (Cmd.PACK, {"modes": [0o040755]}), (Cmd.PACK, {"modes": [0o120777]}), (Cmd.PACK, {"crcs": [0]}),
            (Cmd.PACK, {"modes": [0o120777], "targets": [b"t"]}), (Cmd.PACK, {"own_mode": 0o040755}),
            (Cmd.PACK, {"names": b"", "modes": [0o040755]}), (Cmd.PACK, {"holed": [0]}), (Cmd.ASK, {}),
            (Cmd.PACK, {"lost": [pb.Lost(index=0)]}), (Cmd.PACK, {"act": 5}),
        )
    ],
    *[
        (Cmd.PACK, pb.Pack(groups=[pb.Group(
            names=b"a", sizes=[0], mtimes_ns=[0], modes=[0o100644], act=act, crcs=crcs, found_ns=found
        )]), "PACK")
        for act, crcs, found in [(0, [0], [1]), (1, [], [1, 2])]
    ],
    (Cmd.PACK, pb.Pack(groups=[pb.Group(fault=pb.Fault(code=1))]), "PACK"),
    (Cmd.CHUNK, pb.Chunk(index=MAX_CHUNKS), "CHUNK index"),
    (Cmd.CHUNK, pb.Chunk(index=2**32 - 1), "CHUNK index"),
    (Cmd.AGAIN, pb.Again(index=MAX_CHUNKS), "AGAIN index"),
    (Cmd.FINISH, pb.Finish(chunks=BIG + 1), "FINISH chunks"),
    (Cmd.COMMITTED, pb.Committed(bytes_resumed=BIG + 1), "COMMITTED bytes_resumed"),
]  # fmt: skip


@pytest.mark.parametrize(("cmd", "raw", "field"), REFUSED)
def test_refused_with_the_name_of_the_field(cmd: Cmd, raw: Any, field: str) -> None:
    with pytest.raises(ProtocolError) as info:
        m.decode(cmd, raw.SerializeToString())
    assert str(info.value).startswith(field + ":")
    assert str(info.value).isprintable()


@pytest.mark.parametrize("cmd", [Cmd.DATA, 0, 99, 999, 65535])
def test_commands_without_a_message(cmd: int) -> None:
    with pytest.raises(ProtocolError, match="no message"):
        m.decode(cmd, b"")


def test_bounds_themselves_are_allowed() -> None:
    longest = (b"x" * 255,) * 15 + (b"x" * 254,) + (b"y",)
    for message in (
        m.Stat((b"x" * 255,)),
        m.Stat(longest[:-1]),
        m.Stat((b"x",) * 255),
        m.Stat(()),
        m.Span(0, BIG),
        m.Read(BIG, 0),
        m.Chunk(MAX_CHUNKS - 1, 2**32 - 1),
        m.Offer(m.Identity(MAX_CHUNKS * MIN_CHUNK_SIZE, 0, b""), 0, MIN_CHUNK_SIZE),
        m.Error(ErrorCode.IO, "x" * MAX_TEXT),
        m.Want(tuple(m.Extent(BIG // 2 + 2 * i, 1) for i in range(MAX_RANGES))),
    ):
        assert m.decode(message.CMD, m.encode(message)) == message


def test_what_is_tolerated() -> None:
    assert m.decode(Cmd.ATTRS, pb.Attrs(kind=2, mode=0o1777).SerializeToString()) == m.Attrs(
        m.Kind.DIRECTORY, mode=0o777
    )
    assert m.decode(Cmd.PUT, pb.Put(path=path(b"a")).SerializeToString()) == m.Put((b"a",), False, m.Durability.BATCH)
    assert m.decode(Cmd.STAT, b"") == m.Stat(())
    error = m.decode(Cmd.ERROR, pb.Fault(code=4711, text="\x1b[2J").SerializeToString())
    assert error == m.Error(4711, "\\x1b[2J")
