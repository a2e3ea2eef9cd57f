"""Groups of a peer's entries, checked column by column.

Theory: an index says how many bytes are to come and where they are to stand, so nothing of it is believed: the columns
are equally long, every name is one that a directory can hold, every number is within its bounds.  All of that is asked
of whole columns at once; a single name is looked at only to say which one was wrong.
"""

from __future__ import annotations

from operator import lt
from typing import TYPE_CHECKING, Any, Final

from fsmux.columns import DIRECTORY, GROUP_ENTRIES, KEY_SIZE, KIND_BITS, MODE_BITS, REGULAR, SYMLINK, Act, Group
from fsmux.errors import FsmuxError, ProtocolError, from_code
from fsmux.limits import MAX_FILE_SIZE, MAX_NAME, MAX_PACK_BYTES
from fsmux.wire.messages import checks

if TYPE_CHECKING:
    from collections.abc import Collection

    from fsmux.records import Parts, Xattrs
    from fsmux.wire._pb2 import fsmux_pb2 as pb

_DOTS: Final = {b"", b".", b".."}
_ACTS: Final = {int(act): act for act in Act}
_FILES: Final = {REGULAR}
_KINDS_OF_PACKS: Final = frozenset((REGULAR, DIRECTORY, SYMLINK))


def listed(raw: Collection[pb.Group]) -> tuple[Group, ...]:
    """Of LISTED: what stands in directories."""
    groups = _groups(raw, "LISTED")
    for group in groups:
        if group.itself or group.crcs or group.lost or group.holed or group.act is not Act.MAKE:
            raise ProtocolError("LISTED: a group says what is to be done")
        if not all(map(lt, group.names, group.names[1:])):  # whoever reads them looks for names by halving
            raise ProtocolError("LISTED: names are not in order")
    return groups


def asked(raw: Collection[pb.Group]) -> tuple[Group, ...]:
    """Of ASK: what is to be packed."""
    groups = _groups(raw, "ASK")
    _check_pack(groups, "ASK")
    return groups


def packed(raw: Collection[pb.Group]) -> tuple[Group, ...]:
    """Of PACK: what comes, and what cannot come."""
    checks.at_most(len(raw), GROUP_ENTRIES, "PACK groups")
    groups = tuple([_as_asked(group) if group.as_asked else _group(group, "PACK") for group in raw])
    _check_pack(groups, "PACK")
    for group in groups:
        if group.act is Act.MAKE and not group.as_asked and len(group.crcs) != len(group.names):
            raise ProtocolError(f"PACK: {len(group.crcs)} checksums for {len(group.names)} names")
    return groups


def _as_asked(raw: pb.Group) -> Group:
    """A group of which only that is said which nobody could know; :func:`completed` puts it to the rest."""
    crcs, holed = list(raw.crcs), list(raw.holed)
    if raw.names or raw.sizes or raw.modes or raw.mtimes_ns or raw.own_mode or len(crcs) > GROUP_ENTRIES:
        raise ProtocolError("PACK: a group is as it was asked for, and is not")
    return Group((), crcs=crcs, lost=_lost(raw.lost, len(crcs), "PACK"), holed=holed, as_asked=True)


def completed(group: Group, asked: Group) -> Group:
    """What has come for ``asked``, which gets what was said of it if that was not all; raises ProtocolError."""
    if not group.as_asked:
        return group
    if asked.act is not Act.MAKE or len(group.crcs) != len(asked.names):
        raise ProtocolError(f"PACK: {len(group.crcs)} checksums for {len(asked.names)} names")
    _check_files(group.holed, asked, "PACK", "has holes")
    asked.crcs, asked.lost, asked.holed = group.crcs, group.lost, group.holed
    return asked


def to_digest(raw: Collection[pb.Group]) -> tuple[Group, ...]:
    """Of DIGEST: what is to be read."""
    groups = _groups(raw, "DIGEST")
    for group in groups:
        strange = group.act is not Act.MAKE or group.crcs or group.lost or group.holed or group.error is not None
        if strange or not group.names or group.kinds != {REGULAR}:
            raise ProtocolError("DIGEST: something else than names of regular files")
    return groups


def _groups(raw: Collection[pb.Group], field: str) -> tuple[Group, ...]:
    checks.at_most(len(raw), GROUP_ENTRIES, f"{field} groups")
    return tuple([_group(group, field) for group in raw])


def _check_pack(groups: tuple[Group, ...], field: str) -> None:
    total = sum([group.contents for group in groups if not group.as_asked])
    if total > MAX_PACK_BYTES:
        raise ProtocolError(f"{field}: {total} bytes are more than {MAX_PACK_BYTES}")
    for group in groups:
        if group.act is Act.LIST:
            _check_listed(group, field)
            continue
        if not group.kinds <= _KINDS_OF_PACKS:
            raise ProtocolError(f"{field}: something that is neither file, directory nor link")
        if group.error is not None:
            raise ProtocolError(f"{field}: a group of a listing")
        if group.act is Act.REMOVE and (group.itself or any(group.sizes) or SYMLINK in group.kinds):
            raise ProtocolError(f"{field}: this cannot be removed")


def _check_listed(group: Group, field: str) -> None:
    """What is only told of: why a directory cannot be read, or files and special files of which nothing comes."""
    if field != "PACK" or group.itself or group.crcs or group.lost or group.holed or group.finish is not None:
        raise ProtocolError(f"{field}: a group of a listing")
    if not group.kinds.isdisjoint((DIRECTORY, SYMLINK)):
        raise ProtocolError(f"{field}: a directory or a link that is only told of")


def _group(raw: pb.Group, field: str) -> Group:
    names = _names(raw.names, field)
    sizes, mtimes, modes = list(raw.sizes), list(raw.mtimes_ns), list(raw.modes)
    count = len(names) if names or not modes else 1  # without names it is about the directory itself
    if not len(sizes) == len(mtimes) == len(modes) == count or count > GROUP_ENTRIES:
        raise ProtocolError(f"{field}: columns of {count}, {len(sizes)}, {len(mtimes)} and {len(modes)} entries")
    if (act := _ACTS.get(raw.act)) is None:
        raise ProtocolError(f"{field}: {raw.act} is no act")
    group = Group(_directory(raw, field), names, sizes, mtimes, modes, act=act, more=raw.more)
    kinds = _checked_kinds(group, field) if count else set()
    if raw.owners:
        group.owners = list(raw.owners)
        if len(group.owners) != count:
            raise ProtocolError(f"{field}: {len(group.owners)} owners for {count} entries")
    if raw.crcs:
        group.crcs = list(raw.crcs)
        if len(group.crcs) != len(names):
            raise ProtocolError(f"{field}: {len(group.crcs)} checksums for {len(names)} names")
    group.targets = [_target(text, field) for text in raw.targets]
    links = 0
    if group.act is Act.MAKE and SYMLINK in kinds:
        links = sum([mode & KIND_BITS == SYMLINK for mode in modes])
    elif group.act is Act.LINK:
        links = len(names)
        if not links or kinds != {REGULAR} or any(sizes):
            raise ProtocolError(f"{field}: only files can be linked, and nothing of them is sent")
    if links != len(group.targets):
        raise ProtocolError(f"{field}: {len(group.targets)} targets for {links} links")
    if raw.shared or raw.shared_keys:
        group.shared = _shared(raw, group, field)
    if raw.xattrs:
        group.xattrs = _xattrs(raw, count, field)
    if raw.lost:
        group.lost = _lost(raw.lost, len(names), field)
    if raw.holed:
        group.holed = list(raw.holed)
        _check_files(group.holed, group, field, "has holes")
    if raw.found_ns:
        group.found = list(raw.found_ns)
        if act is not Act.ADJUST or len(group.found) != len(names):
            raise ProtocolError(f"{field}: {len(group.found)} times that {len(names)} entries were found with")
    if raw.own_mode:
        group.finish = _finish(raw, group, field)
    if raw.HasField("fault"):
        group.error = _error(raw.fault, field)
    return group


def _finish(raw: pb.Group, group: Group, field: str) -> tuple[int, int]:
    mode = raw.own_mode
    if field != "PACK" or group.act is not Act.MAKE or not group.names or mode & ~0o777 != DIRECTORY:
        raise ProtocolError(f"{field}: this finishes no directory")
    return raw.own_mtime_ns, mode


def _directory(raw: pb.Group, field: str) -> Parts:
    return checks.path(raw.directory, field) if raw.HasField("directory") else ()


def _names(joined: bytes, field: str) -> list[bytes]:
    if not joined:
        return []
    names = joined.split(b"/")
    wrong = not _DOTS.isdisjoint(names) or b"\0" in joined
    if wrong or (len(joined) > MAX_NAME and max(map(len, names)) > MAX_NAME):
        why = next(filter(None, (checks.why_not_parts((name,)) for name in names)))
        raise ProtocolError(f"{field}: {why}")
    return names


def _checked_kinds(group: Group, field: str) -> set[int]:
    """The kinds of a group whose numbers are in order."""
    sizes, modes = group.sizes, group.modes
    if max(sizes) > MAX_FILE_SIZE:
        raise ProtocolError(f"{field}: a size beyond the largest file")
    if any([mode & ~MODE_BITS for mode in set(modes)]):
        raise ProtocolError(f"{field}: a mode of more than kind and permission bits")
    kinds = group.kinds
    if kinds != _FILES:
        for size, mode in zip(sizes, modes, strict=True):
            if size and mode & KIND_BITS != REGULAR:
                raise ProtocolError(f"{field}: a size of what is no regular file")
    if group.itself and modes[0] & KIND_BITS != DIRECTORY:
        raise ProtocolError(f"{field}: entries without names")
    return kinds


def _target(text: bytes, field: str) -> bytes:
    if not text:
        raise ProtocolError(f"{field}: a link without a target")
    return checks.link_target(text, field)


def _shared(raw: pb.Group, group: Group, field: str) -> dict[int, bytes]:
    indexes, keys = list(raw.shared), raw.shared_keys
    if len(keys) != KEY_SIZE * len(indexes):
        raise ProtocolError(f"{field}: {len(keys)} bytes of keys for {len(indexes)} files")
    _check_files(indexes, group, field, "has several names")
    return {index: keys[KEY_SIZE * place : KEY_SIZE * (place + 1)] for place, index in enumerate(indexes)}


def _check_files(indexes: list[int], group: Group, field: str, what: str) -> None:
    """That these are regular files of the group, each once and in its order."""
    last = -1
    for index in indexes:
        if not last < index < len(group.names) or group.modes[index] & KIND_BITS != REGULAR:
            raise ProtocolError(f"{field}: entry {index} {what}")
        last = index


def _xattrs(raw: pb.Group, count: int, field: str) -> dict[int, Xattrs | None]:
    found: dict[int, Xattrs | None] = {}
    last = -1
    for item in raw.xattrs:
        if not last < item.index < count:
            raise ProtocolError(f"{field}: entry {item.index} of {count} has extended attributes")
        last = item.index
        if (xattrs := checks.xattrs(item, field)) == ():
            raise ProtocolError(f"{field}: entry {last} has no extended attributes")
        found[last] = xattrs
    return found


def _lost(raw: Any, count: int, field: str) -> list[tuple[int, FsmuxError]]:
    lost: list[tuple[int, FsmuxError]] = []
    last = -1
    for item in raw:
        if not last < item.index < count:
            raise ProtocolError(f"{field}: entry {item.index} of {count} is lost")
        last = item.index
        lost.append((last, _error(item.fault, field)))
    return lost


def _error(fault: pb.Fault, field: str) -> FsmuxError:
    return from_code(fault.code, checks.text(fault.text, field))
