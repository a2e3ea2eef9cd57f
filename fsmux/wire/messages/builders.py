"""Records to protobuf messages: one entry per message, the mirror image of ``readers.py``.

What depends on the world rather than on the program is checked here too, so that a mistake is found on the side that
made it: a path must be one that a peer would take, a text is cut to what may be sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fsmux.columns import INDEX_BYTES
from fsmux.errors import BadName, FsmuxError
from fsmux.limits import KIB, MAX_CONTROL_PAYLOAD
from fsmux.records import Attrs, Extent, Identity, Parts, Xattrs, printable
from fsmux.wire._pb2 import fsmux_pb2 as pb
from fsmux.wire.messages import checks
from fsmux.wire.messages import connection as c
from fsmux.wire.messages import types as t

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from google.protobuf.message import Message

    from fsmux.columns import Group


FAULT_COST: Final = 16
"""Bytes of an entry that failed, beside the text that says why."""

LOST_BYTES: Final = MAX_CONTROL_PAYLOAD - INDEX_BYTES - 2 * KIB
"""Bytes in PACK that say what could not be read."""

FAILED_BYTES: Final = MAX_CONTROL_PAYLOAD - KIB
"""Bytes in PACKED that say what failed."""


def _path(parts: Parts) -> pb.Path:
    return pb.Path(parts=_plain(parts))


def _plain(parts: Parts) -> Parts:
    if (why := checks.why_not_parts(parts)) is not None:
        raise BadName(f"{printable(parts)}: {why}")
    return parts


def _text(text: str) -> str:
    """``text`` cut to what may be sent; lone surrogates, which have no encoding, are escaped."""
    return (text if text.isprintable() else printable(text))[: checks.MAX_TEXT]


def _fault(m: c.Fault) -> pb.Fault:
    return pb.Fault(code=m.code, text=_text(m.text))


def _attrs(m: Attrs) -> pb.Attrs:
    return pb.Attrs(
        kind=m.kind,  # type: ignore[arg-type]  # an IntEnum of the same numbers
        size=m.size,
        mtime_ns=m.mtime_ns,
        mode=m.mode,
        link_target=m.link_target,
        owner=m.owner,
        xattrs=None if m.xattrs is None else _xattrs(0, m.xattrs),
    )


def _xattrs(index: int, xattrs: Xattrs | None) -> pb.Xattrs:
    names, values = [name for name, _ in xattrs or ()], [value for _, value in xattrs or ()]
    return pb.Xattrs(index=index, names=names, values=values, unknown=xattrs is None)


def _entry(m: t.Entry) -> pb.Entry:
    return pb.Entry(
        path=_path(m.path),
        attrs=None if m.attrs is None else _attrs(m.attrs),
        fault=None if m.fault is None else _fault(m.fault),
    )


def _identity(m: Identity) -> pb.Identity:
    return pb.Identity(size=m.size, mtime_ns=m.mtime_ns, tag=m.tag)


def _extents(ranges: Iterable[Extent]) -> list[pb.Extent]:
    return [pb.Extent(offset=offset, length=length) for offset, length in ranges]


def _hello(m: c.Hello) -> pb.Hello:
    return pb.Hello(
        min_version=m.min_version,
        max_version=m.max_version,
        features=m.features,
        agent=_text(m.agent),
        max_streams=m.max_streams,
        initial_credit=m.initial_credit,
        eager_credit=m.eager_credit,
        mechanisms=m.mechanisms,
        read_only=m.read_only,
    )


def _get(m: t.Get) -> pb.Get:
    return pb.Get(
        path=_path(m.path),
        fresh=m.fresh,
        chunk_size=m.chunk_size,
    )


def _put(m: t.Put) -> pb.Put:
    return pb.Put(
        path=_path(m.path),
        no_resume=m.no_resume,
        durability=m.durability,  # type: ignore[arg-type]  # an IntEnum of the same numbers
        join=m.join,
        streams=m.streams,
        attempt=m.attempt,
        verify=m.verify,
        like=_path(m.like) if m.like else None,
        no_times=not m.kept.times,
        no_perms=not m.kept.perms,
        attrs=None if m.attrs is None else _attrs(m.attrs),
    )


def _committed(m: t.Committed) -> pb.Committed:
    return pb.Committed(
        crc32=m.crc32,
        durable=m.durable,
        bytes_resumed=m.bytes_resumed,
        refused=None if m.refused is None else _fault(m.refused),
    )


def _store(m: t.Store) -> pb.Store:
    return pb.Store(
        path=_path(m.path),
        durability=m.durability,  # type: ignore[arg-type]  # an IntEnum of the same numbers
        join=m.join,
        attempt=m.attempt,
        verify=m.verify,
        no_times=not m.kept.times,
        no_perms=not m.kept.perms,
        xattrs=m.kept.xattrs,  # type: ignore[arg-type]  # an IntEnum of the same numbers
    )


def _error(error: FsmuxError) -> pb.Fault:
    return pb.Fault(code=error.code, text=_text(str(error)[: checks.MAX_BRIEF]))


def _brief(code: int, text: str, room: int) -> pb.Fault:
    """A fault of at most ``room`` bytes of text: what cannot be said in full comes down to its reason."""
    text = _text(text[: checks.MAX_BRIEF])
    if len(text.encode()) > room:
        text = text.rpartition(": ")[2].encode()[: max(room, 0)].decode(errors="ignore")
    return pb.Fault(code=code, text=text)


def _lost(m: Group, room: int) -> list[pb.Lost]:
    return [pb.Lost(index=index, fault=_brief(error.code, str(error), room)) for index, error in m.lost]


def _group(m: Group, room: int, asking: bool = False) -> pb.Group:
    if m.as_asked:
        return pb.Group(as_asked=True, crcs=m.crcs, holed=m.holed, lost=_lost(m, room))
    raw = pb.Group(names=b"/".join(m.names), sizes=m.sizes, mtimes_ns=m.mtimes, modes=m.modes)
    # What most groups have not is not even named: there are two for each directory of a tree.
    if m.directory:
        raw.directory.parts.extend(_plain(m.directory))
    if m.crcs:
        raw.crcs.extend(m.crcs)
    if m.act:
        raw.act = m.act  # type: ignore[assignment]  # an IntEnum of the same numbers
    if m.targets:
        raw.targets.extend(m.targets)
    if m.owners:
        raw.owners.extend(m.owners)
    if m.holed:
        raw.holed.extend(m.holed)
    if m.found:
        raw.found_ns.extend(m.found)
    if m.finish is not None and not asking:
        raw.own_mtime_ns, raw.own_mode = m.finish
    if m.more:
        raw.more = True
    if m.lost:
        raw.lost.extend(_lost(m, room))
    if m.shared:
        raw.shared.extend(m.shared)
        raw.shared_keys = b"".join(m.shared.values())
    if m.xattrs:
        raw.xattrs.extend([_xattrs(index, found) for index, found in m.xattrs.items()])
    if m.error is not None:
        raw.fault.CopyFrom(_error(m.error))
    return raw


def _groups(groups: Iterable[Group], *, asking: bool = False) -> list[pb.Group]:
    groups = tuple(groups)
    room = LOST_BYTES // max(sum([len(group.lost) for group in groups]), 1) - FAULT_COST
    return [_group(group, room, asking) for group in groups]


def _packed(m: t.Packed) -> pb.Packed:
    room = FAILED_BYTES // max(len(m.failed), 1) - FAULT_COST
    failed = [
        pb.Failed(
            group=failed.group,
            index=failed.entry,
            fault=_brief(failed.fault.code, failed.fault.text, room),
            stands=failed.stands,
        )
        for failed in m.failed
    ]
    return pb.Packed(number=m.number, failed=failed, durable=m.durable)


def _digests(m: t.Digests) -> pb.Digests:
    lost = [index for index, digest in enumerate(m.digests) if digest is None]
    return pb.Digests(digests=b"".join(digest or bytes(checks.DIGEST_SIZE) for digest in m.digests), lost=lost)


BUILDERS: Final[dict[type, Callable[[Any], Message]]] = {
    c.Hello: _hello,
    c.Auth: lambda m: pb.Auth(mechanism=m.mechanism, data=m.data, done=m.done),
    c.Ping: lambda m: pb.Ping(token=m.token),
    c.Pong: lambda m: pb.Ping(token=m.token),
    c.Pace: lambda m: pb.Pace(rate=m.rate),
    c.Credit: lambda m: pb.Credit(grants=[pb.Grant(stream_id=stream, limit=limit) for stream, limit in m.grants]),
    c.Reset: _fault,
    c.Goaway: _fault,
    c.Error: _fault,
    t.Stat: lambda m: pb.Stat(path=_path(m.path), follow=m.follow, owner=m.owner, xattrs=m.xattrs),
    t.List: lambda m: pb.List(path=_path(m.path), recursive=m.recursive),
    t.Entries: lambda m: pb.Entries(entries=[_entry(entry) for entry in m.entries]),
    Attrs: _attrs,
    t.Mkdir: lambda m: pb.Mkdir(path=_path(m.path), parents=m.parents, mode=m.mode),
    t.Rename: lambda m: pb.Rename(source=_path(m.source), target=_path(m.target), replace=m.replace),
    t.Remove: lambda m: pb.Remove(path=_path(m.path), recursive=m.recursive),
    t.SetAttrs: lambda m: pb.SetAttrs(
        path=_path(m.path), attrs=_attrs(m.attrs), durability=m.durability, found_ns=m.found_ns
    ),
    t.Symlink: lambda m: pb.Symlink(
        path=_path(m.path),
        target=m.target,
        attrs=None if m.attrs is None else _attrs(m.attrs),
        durability=m.durability,
    ),
    t.Ok: lambda m: pb.Done(),
    t.Open: lambda m: pb.Open(path=_path(m.path), write=m.write, create=m.create, truncate=m.truncate),
    t.Read: lambda m: pb.Read(offset=m.offset, length=m.length),
    t.ReadDone: lambda m: pb.ReadDone(length=m.length, crc32=m.crc32),
    t.Write: lambda m: pb.Write(offset=m.offset, length=m.length, crc32=m.crc32),
    t.Close: lambda m: pb.Close(sync=m.sync),
    t.Create: lambda m: pb.Create(
        path=_path(m.path),
        mode=m.mode,
        durability=m.durability,
        verify=m.verify,
        join=m.join,
        attempt=m.attempt,
        again=m.again,
    ),
    t.Get: _get,
    t.Put: _put,
    t.Offer: lambda m: pb.Offer(
        identity=_identity(m.identity), mode=m.mode, chunk_size=m.chunk_size, eager=m.eager, holes=m.holes
    ),
    t.Want: lambda m: pb.Want(missing=_extents(m.missing), whole=m.whole, have=m.have, more=m.more, held=m.held),
    t.Haves: lambda m: pb.Haves(
        ranges=[pb.Have(offset=have.offset, length=have.length, digest=have.digest) for have in m.ranges], more=m.more
    ),
    t.Keep: lambda m: pb.Keep(ranges=_extents(m.ranges), more=m.more),
    t.Span: lambda m: pb.Span(
        offset=m.offset,
        length=m.length,
        ranges=_extents(m.ranges),
        holes=_extents(m.holes),
        chunks=[pb.Chunk(index=chunk.index, crc32=chunk.crc32) for chunk in m.chunks],
    ),
    t.Chunk: lambda m: pb.Chunk(index=m.index, crc32=m.crc32),
    t.Again: lambda m: pb.Again(index=m.index, found=m.found),
    t.Finish: lambda m: pb.Finish(chunks=m.chunks, crc32=m.crc32),
    t.Committed: _committed,
    t.Store: _store,
    t.Fetch: lambda m: pb.Fetch(path=_path(m.path)),
    t.Ask: lambda m: pb.Pack(number=m.number, groups=_groups(m.groups, asking=True)),
    t.Pack: lambda m: pb.Pack(
        number=m.number, groups=_groups(m.groups), files=m.files, bytes=m.bytes, all_known=m.all_known
    ),
    t.Packed: _packed,
    t.Walk: lambda m: pb.Walk(
        path=_path(m.path), pack_bytes=m.pack_bytes, medium=m.medium, owners=m.owners, xattrs=m.xattrs
    ),
    t.Look: lambda m: pb.Look(
        path=_path(m.path), directories=[_path(parts) for parts in m.directories], owners=m.owners, xattrs=m.xattrs
    ),
    t.Listed: lambda m: pb.Listed(groups=_groups(m.groups)),
    t.Digest: lambda m: pb.Digest(path=_path(m.path), groups=_groups(m.groups)),
    t.Digests: _digests,
}
