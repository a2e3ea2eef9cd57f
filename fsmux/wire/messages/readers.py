"""Protobuf messages to records: one entry per command, the mirror image of ``builders.py``.

Every field goes through :mod:`~fsmux.wire.messages.checks` unless any value of its type is fit to use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from fsmux.columns import GROUP_ENTRIES
from fsmux.errors import ProtocolError
from fsmux.limits import MIN_HOLE
from fsmux.records import Attrs, Identity, Kept, Namespaces
from fsmux.wire._pb2 import fsmux_pb2 as pb
from fsmux.wire.frames import MAX_STREAM_ID, Cmd
from fsmux.wire.messages import checks
from fsmux.wire.messages import connection as c
from fsmux.wire.messages import groups as g
from fsmux.wire.messages import types as t

if TYPE_CHECKING:
    from collections.abc import Callable

_F = TypeVar("_F", bound=c.Fault)
_MAX_CREDIT: Final = checks.MAX_CREDIT


def _read_hello(raw: pb.Hello) -> c.Hello:
    if not 1 <= raw.min_version <= raw.max_version:
        raise ProtocolError(f"HELLO versions: {raw.min_version} to {raw.max_version} is no range")
    return c.Hello(
        raw.min_version,
        raw.max_version,
        checks.tokens(raw.features, "HELLO features"),
        checks.text(raw.agent, "HELLO agent"),
        raw.max_streams,
        checks.at_most(raw.initial_credit, _MAX_CREDIT, "HELLO initial_credit"),
        checks.at_most(raw.eager_credit, _MAX_CREDIT, "HELLO eager_credit"),
        checks.tokens(raw.mechanisms, "HELLO mechanisms"),
        raw.read_only,
    )


def _read_auth(raw: pb.Auth) -> c.Auth:
    mechanism = raw.mechanism and checks.token(raw.mechanism, "AUTH mechanism")
    return c.Auth(mechanism, raw.data, raw.done)


def _read_credit(raw: pb.Credit) -> c.Credit:
    grants = tuple([(grant.stream_id, grant.limit) for grant in raw.grants])
    for stream_id, limit in grants:
        if not 0 < stream_id <= MAX_STREAM_ID or limit > _MAX_CREDIT:
            raise ProtocolError(f"CREDIT grants: {limit} bytes on stream {stream_id}")
    return c.Credit(grants)


def _read_fault(cls: type[_F], name: str) -> Callable[[pb.Fault], _F]:
    field = f"{name} text"
    return lambda raw: cls(raw.code, checks.text(raw.text, field))


def _read_attrs(raw: pb.Attrs, name: str = "ATTRS") -> Attrs:
    return Attrs(
        checks.kind(raw.kind, name),
        checks.size(raw.size, name),
        raw.mtime_ns,
        checks.mode(raw.mode, name),
        checks.link_target(raw.link_target, name),
        raw.owner if raw.HasField("owner") else None,
        checks.xattrs(raw.xattrs, name) if raw.HasField("xattrs") else None,
    )


def _read_entry(raw: pb.Entry) -> t.Entry:
    parts = checks.path(raw.path, "ENTRIES path")
    if raw.HasField("attrs"):
        return t.Entry(parts, _read_attrs(raw.attrs, "ENTRIES attrs"))
    if raw.HasField("fault"):
        return t.Entry(parts, None, c.Fault(raw.fault.code, checks.text(raw.fault.text, "ENTRIES fault")))
    raise ProtocolError("ENTRIES: an entry has neither attributes nor a fault")


def _read_identity(raw: pb.Identity, field: str) -> Identity:
    return Identity(checks.size(raw.size, field), raw.mtime_ns, checks.blob(raw.tag, checks.MAX_TAG, field))


def _read_symlink(raw: pb.Symlink) -> t.Symlink:
    target = checks.link_target(raw.target, "SYMLINK target")
    if not target:
        raise ProtocolError("SYMLINK target: empty")
    attrs = _read_attrs(raw.attrs, "SYMLINK attrs") if raw.HasField("attrs") else None
    durability = checks.durability(raw.durability, "SYMLINK durability")
    return t.Symlink(checks.path(raw.path, "SYMLINK path"), target, attrs, durability)


def _read_get(raw: pb.Get) -> t.Get:
    return t.Get(
        checks.path(raw.path, "GET path"),
        raw.fresh,
        raw.chunk_size and checks.chunk_size(raw.chunk_size, "GET chunk_size"),
    )


def _read_offer(raw: pb.Offer) -> t.Offer:
    identity = _read_identity(raw.identity, "OFFER identity")
    per_chunk = checks.chunk_size(raw.chunk_size, "OFFER chunk_size")
    checks.chunk_count(identity.size, per_chunk, "OFFER chunk_size")
    return t.Offer(identity, checks.mode(raw.mode, "OFFER mode"), per_chunk, raw.eager, min(raw.holes, identity.size))


def _read_digests(raw: pb.Digests) -> t.Digests:
    size, joined = checks.DIGEST_SIZE, raw.digests
    if len(joined) % size or not 0 < len(joined) <= size * GROUP_ENTRIES:
        raise ProtocolError(f"DIGESTS: {len(joined)} bytes of digests")
    found: list[bytes | None] = [joined[at : at + size] for at in range(0, len(joined), size)]
    for index in raw.lost:
        found[checks.at_most(index, len(found) - 1, "DIGESTS lost")] = None
    return t.Digests(tuple(found))


def _read_haves(raw: pb.Haves) -> t.Haves:
    checks.in_order(raw.ranges, len(raw.ranges), checks.MAX_HAVES, "HAVES ranges")
    ranges = [t.Have(have.offset, have.length, checks.digest(have.digest, "HAVES digest")) for have in raw.ranges]
    return t.Haves(tuple(ranges), raw.more)


def _read_span(raw: pb.Span) -> t.Span:
    if raw.ranges or raw.holes:
        if raw.length or raw.offset:
            raise ProtocolError("SPAN: one range, and several")
        if len(raw.chunks) > checks.MAX_RANGES:
            raise ProtocolError(f"SPAN chunks: {len(raw.chunks)} are more than {checks.MAX_RANGES}")
        ranges, holes = checks.extents(raw.ranges, "SPAN ranges"), checks.extents(raw.holes, "SPAN holes")
        if any(length < MIN_HOLE for _, length in holes):
            raise ProtocolError(f"SPAN holes: one of less than {MIN_HOLE} bytes")
        return t.Span(ranges=ranges, holes=holes, chunks=tuple([t.Chunk(one.index, one.crc32) for one in raw.chunks]))
    if not raw.length:
        raise ProtocolError("SPAN: empty")
    return t.Span(*checks.extent(raw.offset, raw.length, "SPAN"))


def _read_packed(raw: pb.Packed) -> t.Packed:
    failed = [
        t.Failed(
            item.group,
            item.index,
            c.Fault(item.fault.code, checks.text(item.fault.text, "PACKED fault")),
            item.stands,
        )
        for item in raw.failed
    ]
    return t.Packed(raw.number, tuple(failed), raw.durable)


def _read_look(raw: pb.Look) -> t.Look:
    directories = [_path_of(path, "LOOK directories") for path in raw.directories]
    xattrs = checks.namespaces(raw.xattrs, "LOOK xattrs")
    return t.Look(_path_of(raw.path, "LOOK path"), tuple(directories), raw.owners, xattrs)


def _read_pack(raw: pb.Pack) -> t.Pack:
    return t.Pack(raw.number, g.packed(raw.groups), raw.files, raw.bytes, raw.all_known)


def _read_walk(raw: pb.Walk) -> t.Walk:
    xattrs = checks.namespaces(raw.xattrs, "WALK xattrs")
    return t.Walk(_path_of(raw.path, "WALK path"), raw.owners, xattrs, raw.pack_bytes, raw.medium)


def _read_stat(raw: pb.Stat) -> t.Stat:
    xattrs = checks.namespaces(raw.xattrs, "STAT xattrs")
    return t.Stat(_path_of(raw.path, "STAT path"), raw.follow, raw.owner, xattrs)


def _read_kept(raw: pb.Put | pb.Store) -> Kept:
    xattrs = Namespaces.NONE if isinstance(raw, pb.Put) else checks.namespaces(raw.xattrs, "STORE xattrs")
    return Kept(times=not raw.no_times, perms=not raw.no_perms, xattrs=xattrs)


_path_of = checks.path

READERS: Final[dict[int, tuple[Callable[[bytes], Any], Callable[[Any], t.Message]]]] = {
    Cmd.HELLO: (pb.Hello.FromString, _read_hello),
    Cmd.AUTH: (pb.Auth.FromString, _read_auth),
    Cmd.PING: (pb.Ping.FromString, lambda raw: c.Ping(raw.token)),
    Cmd.PONG: (pb.Ping.FromString, lambda raw: c.Pong(raw.token)),
    Cmd.PACE: (pb.Pace.FromString, lambda raw: c.Pace(checks.at_most(raw.rate, _MAX_CREDIT, "PACE rate"))),
    Cmd.CREDIT: (pb.Credit.FromString, _read_credit),
    Cmd.RESET: (pb.Fault.FromString, _read_fault(c.Reset, "RESET")),
    Cmd.GOAWAY: (pb.Fault.FromString, _read_fault(c.Goaway, "GOAWAY")),
    Cmd.ERROR: (pb.Fault.FromString, _read_fault(c.Error, "ERROR")),
    Cmd.STAT: (pb.Stat.FromString, _read_stat),
    Cmd.LIST: (pb.List.FromString, lambda raw: t.List(_path_of(raw.path, "LIST path"), raw.recursive)),
    Cmd.ENTRIES: (pb.Entries.FromString, lambda raw: t.Entries(tuple([_read_entry(entry) for entry in raw.entries]))),
    Cmd.ATTRS: (pb.Attrs.FromString, _read_attrs),
    Cmd.MKDIR: (
        pb.Mkdir.FromString,
        lambda raw: t.Mkdir(_path_of(raw.path, "MKDIR path"), raw.parents, checks.mode(raw.mode, "MKDIR mode")),
    ),
    Cmd.RENAME: (
        pb.Rename.FromString,
        lambda raw: t.Rename(_path_of(raw.source, "RENAME source"), _path_of(raw.target, "RENAME target"), raw.replace),
    ),
    Cmd.REMOVE: (pb.Remove.FromString, lambda raw: t.Remove(_path_of(raw.path, "REMOVE path"), raw.recursive)),
    Cmd.SETATTRS: (
        pb.SetAttrs.FromString,
        lambda raw: t.SetAttrs(
            _path_of(raw.path, "SETATTRS path"),
            _read_attrs(raw.attrs, "SETATTRS attrs"),
            checks.durability(raw.durability, "SETATTRS durability"),
            raw.found_ns,
        ),
    ),
    Cmd.SYMLINK: (pb.Symlink.FromString, _read_symlink),
    Cmd.OK: (pb.Done.FromString, lambda raw: t.Ok()),
    Cmd.OPEN: (
        pb.Open.FromString,
        lambda raw: t.Open(_path_of(raw.path, "OPEN path"), raw.write, raw.create, raw.truncate),
    ),
    Cmd.READ: (pb.Read.FromString, lambda raw: t.Read(*checks.extent(raw.offset, raw.length, "READ"))),
    Cmd.READ_DONE: (
        pb.ReadDone.FromString,
        lambda raw: t.ReadDone(checks.size(raw.length, "READ_DONE length"), raw.crc32),
    ),
    Cmd.WRITE: (
        pb.Write.FromString,
        lambda raw: t.Write(*checks.extent(raw.offset, raw.length, "WRITE"), raw.crc32),
    ),
    Cmd.CLOSE: (pb.Close.FromString, lambda raw: t.Close(raw.sync)),
    Cmd.CREATE: (
        pb.Create.FromString,
        lambda raw: t.Create(
            _path_of(raw.path, "CREATE path"),
            checks.mode(raw.mode, "CREATE mode"),
            checks.durability(raw.durability, "CREATE durability"),
            raw.verify,
            checks.join(raw.join, "CREATE join"),
            raw.attempt,
            raw.again,
        ),
    ),
    Cmd.GET: (pb.Get.FromString, _read_get),
    Cmd.PUT: (
        pb.Put.FromString,
        lambda raw: t.Put(
            _path_of(raw.path, "PUT path"),
            raw.no_resume,
            checks.durability(raw.durability, "PUT durability"),
            checks.join(raw.join, "PUT join"),
            checks.at_most(raw.streams, checks.MAX_JOINED, "PUT streams"),
            raw.attempt,
            raw.verify,
            _path_of(raw.like, "PUT like"),
            kept=_read_kept(raw),
            attrs=_read_attrs(raw.attrs, "PUT attrs") if raw.HasField("attrs") else None,
        ),
    ),
    Cmd.OFFER: (pb.Offer.FromString, _read_offer),
    Cmd.WANT: (
        pb.Want.FromString,
        lambda raw: t.Want(
            checks.extents(raw.missing, "WANT missing"),
            raw.whole,
            raw.have,
            raw.more,
            checks.size(raw.held, "WANT held"),
        ),
    ),
    Cmd.HAVES: (pb.Haves.FromString, _read_haves),
    Cmd.KEEP: (pb.Keep.FromString, lambda raw: t.Keep(checks.extents(raw.ranges, "KEEP ranges"), raw.more)),
    Cmd.SPAN: (pb.Span.FromString, _read_span),
    Cmd.CHUNK: (
        pb.Chunk.FromString,
        lambda raw: t.Chunk(
            checks.chunk_index(raw.index, "CHUNK index"),
            raw.crc32,
        ),
    ),
    Cmd.AGAIN: (
        pb.Again.FromString,
        lambda raw: t.Again(checks.chunk_index(raw.index, "AGAIN index"), raw.found),
    ),
    Cmd.FINISH: (
        pb.Finish.FromString,
        lambda raw: t.Finish(checks.size(raw.chunks, "FINISH chunks"), raw.crc32 if raw.HasField("crc32") else None),
    ),
    Cmd.COMMITTED: (
        pb.Committed.FromString,
        lambda raw: t.Committed(
            raw.crc32,
            raw.durable,
            checks.size(raw.bytes_resumed, "COMMITTED bytes_resumed"),
            _read_fault(c.Fault, "COMMITTED refused")(raw.refused) if raw.HasField("refused") else None,
        ),
    ),
    Cmd.STORE: (
        pb.Store.FromString,
        lambda raw: t.Store(
            _path_of(raw.path, "STORE path"),
            checks.durability(raw.durability, "STORE durability"),
            checks.join(raw.join, "STORE join"),
            raw.attempt,
            raw.verify,
            kept=_read_kept(raw),
        ),
    ),
    Cmd.FETCH: (pb.Fetch.FromString, lambda raw: t.Fetch(_path_of(raw.path, "FETCH path"))),
    Cmd.ASK: (pb.Pack.FromString, lambda raw: t.Ask(raw.number, g.asked(raw.groups))),
    Cmd.PACK: (pb.Pack.FromString, _read_pack),
    Cmd.PACKED: (pb.Packed.FromString, _read_packed),
    Cmd.WALK: (pb.Walk.FromString, _read_walk),
    Cmd.LOOK: (pb.Look.FromString, _read_look),
    Cmd.LISTED: (pb.Listed.FromString, lambda raw: t.Listed(g.listed(raw.groups))),
    Cmd.DIGEST: (
        pb.Digest.FromString,
        lambda raw: t.Digest(_path_of(raw.path, "DIGEST path"), g.to_digest(raw.groups)),
    ),
    Cmd.DIGESTS: (pb.Digests.FromString, _read_digests),
}
