"""Whatever is sent comes back equal; whatever else arrives is a typed error; what nobody would take is not sent."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmux.columns import Act, Group, itself, sparse
from fsmux.errors import BadName, ProtocolError
from fsmux.limits import MAX_CHUNKS, MAX_CONTROL_PAYLOAD, MAX_FILE_SIZE, MIN_CHUNK_SIZE
from fsmux.records import Kept, Namespaces
from fsmux.wire import messages as m
from fsmux.wire._pb2 import fsmux_pb2
from fsmux.wire.frames import CREDITED, Cmd
from fsmux.wire.messages import types
from fsmux.wire.messages.checks import MAX_BRIEF, MAX_HAVES, MAX_RANGES, MAX_TEXT

from .helpers import BIG

pb: Any = fsmux_pb2  # protobuf messages are made with values that their stubs forbid
MESSAGES = {int(cls.CMD): cls for cls in typing.get_args(types.Message)}

# ---- strategies -------------------------------------------------------------------------------------------------

u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
sizes = st.integers(0, MAX_FILE_SIZE)
briefs = st.text(st.characters(categories=["L", "N"]), max_size=MAX_BRIEF)
texts = st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=MAX_TEXT)
names = st.binary(min_size=1, max_size=20).filter(lambda b: b not in (b".", b"..") and not {0, 47} & set(b))
paths = st.lists(names, max_size=5).map(tuple)
targets = st.binary(min_size=1, max_size=100).filter(lambda b: 0 not in b)
tokens = st.lists(st.from_regex(r"[A-Za-z0-9._+-]{1,64}", fullmatch=True), max_size=4).map(tuple)
times = st.integers(-(2**63), 2**63 - 1)
digests = keys = st.binary(min_size=16, max_size=16)
chunk_sizes = st.integers(16, 26).map(lambda power: 2**power)
modes = st.integers(0, 0o777)
extent = st.tuples(st.integers(0, 2**61), st.integers(0, 2**61))
xattrs = st.dictionaries(targets, st.binary(max_size=100), max_size=4).map(lambda found: tuple(sorted(found.items())))
namespaces = st.sampled_from(Namespaces)
attrs = st.builds(
    m.Attrs, st.sampled_from(m.Kind), sizes, times, modes, st.one_of(st.just(b""), targets), st.one_of(st.none(), u64),
    st.one_of(st.none(), xattrs),
)  # fmt: skip
joins = st.one_of(st.just(b""), st.binary(min_size=16, max_size=16))
kept = st.builds(Kept, st.booleans(), st.booleans())
stored = st.builds(Kept, st.booleans(), st.booleans(), xattrs=namespaces)
identities = st.builds(m.Identity, st.integers(0, MAX_CHUNKS * MIN_CHUNK_SIZE), times, st.binary(max_size=64))
entries = st.one_of(
    st.builds(m.Entry, paths, attrs), st.builds(m.Entry, paths, st.none(), st.builds(m.Fault, u32, texts))
)


@st.composite
def extents(draw: st.DrawFn) -> tuple[m.Extent, ...]:
    result, end = [], 0
    for gap, length in draw(st.lists(st.tuples(st.integers(0, 2**40), st.integers(1, 2**40)), max_size=6)):
        result.append(m.Extent(end + gap, length))
        end += gap + length
    return tuple(result)


finishes = st.tuples(times, modes.map(lambda mode: 0o040000 | mode))


@st.composite
def groups(draw: st.DrawFn, *, packed: bool = False, listed: bool = False, digested: bool = False) -> Group:
    """A group of a pack, of what is asked for, of a listing, or of files that are to be read."""
    kinds = [0o100000, 0o040000, 0o120000, *([0o010000, 0o020000, 0o140000] if listed else [])]
    here = draw(paths)
    if digested:
        found = draw(st.lists(names, min_size=1, max_size=6))
        count = len(found)
        return Group(here, found, [draw(sizes) for _ in found], [0] * count, [0o100000] * count)
    if packed and draw(st.booleans()):
        crcs = draw(st.lists(u32, max_size=6))
        return Group((), crcs=crcs, holed=[index for index in range(len(crcs)) if draw(st.booleans())], as_asked=True)
    act = Act.MAKE if listed else draw(st.sampled_from([act for act in Act if packed or act is not Act.LIST]))
    if act is Act.LIST:
        kinds = [0o100000, 0o010000, 0o020000]
        listed, packed = True, False
    if act is Act.LINK:
        found = draw(st.lists(names, min_size=1, max_size=6))
        columns = [[draw(times), 0o100000 | draw(modes), draw(targets)] for _ in found]
        return Group(here, found, [0] * len(found), *map(list, zip(*columns, strict=True)), act=act)
    if act is Act.REMOVE:
        kinds.remove(0o120000)
    elif not listed and draw(st.booleans()):
        return itself(here, draw(times), 0o040000 | draw(modes), act, xattrs=draw(st.one_of(st.none(), xattrs)))
    found = draw(st.lists(names, max_size=6))
    found = sorted(set(found)) if listed else found
    kind = [draw(st.sampled_from(kinds)) for _ in found]
    regular = [one == 0o100000 for one in kind]
    links = act is Act.MAKE and [one for one in kind if one == 0o120000]
    return Group(
        here,
        found,
        [draw(st.integers(0, 2**18)) if one and act is not Act.REMOVE else 0 for one in regular],
        [draw(times) for _ in found],
        [one | draw(modes) for one in kind],
        [draw(targets) for _ in links or ()],
        act,
        [draw(u32) for _ in found] if packed and act is Act.MAKE else [],
        holed=[index for index, one in enumerate(regular) if one and packed and draw(st.booleans())],
        finish=draw(st.one_of(st.none(), finishes)) if packed and found and act is Act.MAKE else None,
        more=(listed or packed) and draw(st.booleans()),
        owners=[draw(u64) for _ in found] if draw(st.booleans()) else [],
        xattrs=sparse(draw(st.one_of(st.none(), xattrs)) for _ in found) if draw(st.booleans()) else {},
        shared={index: draw(keys) for index, one in enumerate(regular) if one and listed and draw(st.booleans())},
        found=[draw(times) for _ in found] if act is Act.ADJUST and draw(st.booleans()) else [],
    )


haves = st.tuples(extents(), digests).map(lambda both: tuple(m.Have(*extent, both[1]) for extent in both[0]))
faults = {"code": u32, "text": texts}
FIELDS: dict[type, dict[str, st.SearchStrategy[Any]]] = {
    m.Hello: {
        "min_version": st.integers(1, 5), "max_version": st.integers(5, 2**32 - 1), "features": tokens, "agent": texts,
        "max_streams": u32, "initial_credit": sizes, "eager_credit": sizes, "mechanisms": tokens,
    },
    m.Auth: {"mechanism": st.sampled_from(["", "SCRAM-SHA-256"]), "data": st.binary(max_size=100)},
    m.Ping: {"token": u64},
    m.Pong: {"token": u64},
    m.Pace: {"rate": sizes},
    m.Credit: {"grants": st.lists(st.tuples(st.integers(1, 2**32 - 1), sizes), max_size=5).map(tuple)},
    m.Reset: faults, m.Goaway: faults, m.Error: faults,
    m.Stat: {"xattrs": namespaces}, m.List: {}, m.Mkdir: {"mode": modes},
    m.Rename: {"source": paths, "target": paths}, m.Remove: {},
    m.Entries: {"entries": st.lists(entries, max_size=5).map(tuple)},
    m.SetAttrs: {"attrs": attrs, "durability": st.sampled_from(m.Durability), "found_ns": times},
    m.Symlink: {
        "target": targets, "attrs": st.one_of(st.none(), attrs), "durability": st.sampled_from(m.Durability),
    },
    m.Ok: {}, m.Open: {},
    m.Read: {"offset": st.integers(0, 2**61), "length": st.integers(0, 2**61)},
    m.ReadDone: {"length": sizes, "crc32": u32},
    m.Write: {"offset": st.integers(0, 2**61), "length": st.integers(0, 2**61), "crc32": u32},
    m.Close: {}, m.Create: {"mode": modes, "durability": st.sampled_from(m.Durability), "join": joins, "attempt": u32},
    m.Get: {"chunk_size": st.one_of(st.just(0), chunk_sizes)},
    m.Put: {
        "durability": st.sampled_from(m.Durability),
        "join": joins, "streams": st.integers(0, 1024), "attempt": u32, "like": paths, "kept": kept,
        "attrs": st.one_of(st.none(), attrs),
    },
    m.Offer: {"identity": identities, "mode": modes, "chunk_size": chunk_sizes, "holes": st.just(0)},
    m.Want: {"missing": extents(), "held": sizes}, m.Haves: {"ranges": haves}, m.Keep: {"ranges": extents()},
    m.Span: {
        "offset": st.integers(0, 2**61), "length": st.integers(1, 2**61),
        "ranges": st.just(()), "holes": st.just(()), "chunks": st.just(()),
    },
    m.Chunk: {"index": st.integers(0, MAX_CHUNKS - 1), "crc32": u32},
    m.Again: {"index": st.integers(0, MAX_CHUNKS - 1), "found": u32},
    m.Finish: {"chunks": sizes, "crc32": st.one_of(st.none(), u32)},
    m.Committed: {
        "crc32": u32, "bytes_resumed": sizes, "refused": st.one_of(st.none(), st.builds(m.Fault, u32, texts)),
    },
    m.Store: {"durability": st.sampled_from(m.Durability), "join": joins, "attempt": u32, "kept": stored},
    m.Fetch: {}, m.Walk: {"xattrs": namespaces, "pack_bytes": sizes, "medium": sizes},
    m.Look: {"directories": st.lists(paths, max_size=4).map(tuple), "xattrs": namespaces},
    m.Ask: {"number": u64, "groups": st.lists(groups(), max_size=4).map(tuple)},
    m.Pack: {
        "number": u64, "groups": st.lists(groups(packed=True), max_size=4).map(tuple), "files": u64, "bytes": u64,
    },
    m.Packed: {
        "number": u64,
        "failed": st.lists(
            st.builds(m.Failed, u32, u32, st.builds(m.Fault, u32, briefs), st.booleans()), max_size=4
        ).map(tuple),
    },
    m.Digest: {"groups": st.lists(groups(digested=True), max_size=4).map(tuple)},
    m.Digests: {"digests": st.lists(st.one_of(st.none(), digests), min_size=1, max_size=9).map(tuple)},
    m.Listed: {"groups": st.lists(groups(listed=True), max_size=4).map(tuple)},
}  # fmt: skip


def made(cls: Any) -> st.SearchStrategy[Any]:
    if cls is m.Attrs:
        return attrs
    known = FIELDS[cls]
    for name in cls.__struct_fields__:
        if name not in known:
            known[name] = paths if name == "path" else st.booleans()
    return st.fixed_dictionaries(known).map(lambda values: cls(**values))


messages = st.sampled_from(sorted(MESSAGES.values(), key=lambda cls: cls.__name__)).flatmap(made)

# ---- round trip -------------------------------------------------------------------------------------------------


def test_every_command_but_data_has_its_message() -> None:
    assert set(MESSAGES) == m.COMMANDS == set(Cmd) - {Cmd.DATA}
    assert set(m.__all__) >= {cls.__name__ for cls in MESSAGES.values()}
    assert {Cmd.DATA, Cmd.ENTRIES, Cmd.PACK, Cmd.ASK, Cmd.LISTED, Cmd.DIGESTS} == CREDITED


@given(messages)
def test_round_trip(message: Any) -> None:
    assert m.decode(message.CMD, m.encode(message)) == message


@pytest.mark.parametrize("cls", MESSAGES.values(), ids=lambda cls: cls.__name__)
def test_round_trip_of_each(cls: type) -> None:
    @given(made(cls))
    def check(message: Any) -> None:
        again = m.decode(message.CMD, m.encode(message))
        assert again == message
        assert type(again) is cls

    check()


@given(messages, st.binary(max_size=50))
def test_unknown_fields_are_ignored(message: Any, extra: bytes) -> None:
    unknown = pb.Auth(data=extra).SerializeToString().replace(b"\x12", b"\xfa\x7f", 1)  # field 2 becomes field 2047
    assert m.decode(message.CMD, m.encode(message) + unknown) == message


# ---- anything else ----------------------------------------------------------------------------------------------


def decodes_or_raises_protocol_error(cmd: int, payload: bytes) -> None:
    error = None
    try:
        m.decode(cmd, payload)
    except ProtocolError as caught:
        error = caught
    if error is not None:
        assert str(error).isprintable()
        assert 0 < len(str(error)) < 500


any_command = st.one_of(st.sampled_from(list(Cmd)).map(int), st.integers(0, 2**16 - 1))


@given(any_command, st.binary(max_size=200))
def test_any_bytes_give_a_message_or_the_typed_error(cmd: int, payload: bytes) -> None:
    decodes_or_raises_protocol_error(cmd, payload)


@given(messages, any_command, st.integers(0, 500), st.integers(0, 255), st.booleans())
def test_damaged_messages_give_a_message_or_the_typed_error(
    message: Any, cmd: int, at: int, byte: int, own: bool
) -> None:
    payload = bytearray(m.encode(message)) or bytearray(1)
    payload[at % len(payload)] = byte
    decodes_or_raises_protocol_error(message.CMD if own else cmd, bytes(payload))


@pytest.mark.parametrize("cmd", sorted(m.COMMANDS))
@pytest.mark.parametrize(
    "bomb",
    [
        b"\x0b" * 50_000,  # groups within groups
        b"\x0a\x02" * 32_000,
        b"\x0a\x00" * 32_000,  # empty submessages
        b"\xff" * 64_000,
        b"\x0a" + b"\x80" * 12,
        b"\x0a\xff\xff\xff\xff\x0f",
    ],
    ids=["groups", "nested", "empty", "varint", "overlong", "length"],
)
def test_bombs(cmd: int, bomb: bytes) -> None:
    decodes_or_raises_protocol_error(cmd, bomb)


# ---- this side's own mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [(b"..",), (b"a/b",), (b"",), (b"x" * 256,), (b"a\nb", b".")])
def test_a_path_that_no_peer_would_take_stays_here(parts: tuple[bytes, ...]) -> None:
    with pytest.raises(BadName) as info:
        m.encode(m.Stat(parts))
    assert str(info.value).isprintable()


def test_texts_are_made_fit() -> None:
    assert m.decode(Cmd.ERROR, m.encode(m.Error(1, "x" * 5000))) == m.Error(1, "x" * MAX_TEXT)
    assert m.decode(Cmd.ERROR, m.encode(m.Error(1, "two\nlines \udcff"))) == m.Error(1, "two\\x0alines \\xff")


def test_what_does_not_fit_a_frame() -> None:
    with pytest.raises(ValueError, match="pages"):
        m.encode(m.Entries(tuple(m.Entry((b"x" * 200,), m.Attrs(m.Kind.FILE)) for _ in range(400))))


def test_pages_of_a_listing() -> None:
    entries = tuple(m.Entry((b"x" * (i % 250 + 1),), m.Attrs(m.Kind.FILE, i, 2**60 + i)) for i in range(3000))
    pages = list(m.pages(m.Entries(entries)))
    assert 3 <= len(pages) < 30
    assert all(len(m.encode(page)) <= MAX_CONTROL_PAYLOAD for page in pages)
    assert all(len(page.entries) <= 1000 for page in pages)
    assert sum((page.entries for page in pages), ()) == entries


long_paths = st.tuples(st.integers(1, 15), st.integers(200, 255)).map(lambda shape: (b"x" * shape[1],) * shape[0])


@given(st.lists(st.builds(m.Entry, long_paths, attrs), max_size=60))
def test_pages_of_long_names_fit(entries: list[m.Entry]) -> None:
    pages = list(m.pages(m.Entries(tuple(entries))))
    assert [entry for page in pages for entry in page.entries] == entries
    for page in pages:
        m.encode(page)


def test_the_widest_entry_fits() -> None:
    wide = m.Fault(2**32 - 1, "\U0001f600" * MAX_TEXT)
    entry = m.Entry((b"x" * 255,) * 15, m.Attrs(m.Kind.SYMLINK, BIG, -(2**63), 0o777, b"x" * 4095), wide)
    pages = list(m.pages(m.Entries((entry,) * 100)))
    assert [len(page.entries) for page in pages] == [1] * 100
    assert max(len(m.encode(page)) for page in pages) <= MAX_CONTROL_PAYLOAD


def test_pages_of_ranges() -> None:
    ranges = tuple(m.Extent(BIG // 2 + 2 * i, 1) for i in range(2 * MAX_RANGES + 1))
    wants = list(m.pages(m.Want(ranges, have=True)))
    assert [(len(want.missing), want.more, want.have) for want in wants] == [
        (MAX_RANGES, True, True), (MAX_RANGES, True, True), (1, False, True)
    ]  # fmt: skip
    keeps = list(m.pages(m.Keep(ranges)))
    assert [keep.more for keep in keeps] == [True, True, False]
    haves = list(m.pages(m.Haves(tuple(m.Have(*extent, bytes(16)) for extent in ranges))))
    assert [len(part.ranges) for part in haves] == [MAX_HAVES] * 4 + [1]
    every: list[Any] = [*wants, *keeps, *haves]
    for page in every:
        assert m.decode(page.CMD, m.encode(page)) == page


def test_nothing_to_say_is_one_page() -> None:
    nothing: list[Any] = [m.Entries(), m.Want(whole=True), m.Haves(), m.Keep()]
    for empty in nothing:
        assert list(m.pages(empty)) == [empty]
