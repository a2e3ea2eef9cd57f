"""Manifests as files: where they are looked for, and how they get there whole.

Theory: a manifest lies beside its tree, as ``photos.fsmux-manifest`` beside ``photos``, and not in it: it would be
transferred, counted and mistaken for content there.  That of a directory serves for what is in it, too.  While one is
made it has no name, so that no scan meets it; then it replaces the old one by a rename, durably, or not at all.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from fsmux import events
from fsmux.errors import NotFound, UsageError, from_os_error
from fsmux.files.digestfile import Reader, Writer
from fsmux.limits import MIB
from fsmux.records import printable
from fsmux.units import format_exact

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from fsmux.moving.ledger import Ledger
    from fsmux.records import Parts

SUFFIX: Final = ".fsmux-manifest"
"""What the name of a tree's manifest has behind that of the tree."""

BUFFER: Final = 1 * MIB
"""Bytes that are gathered before they are written: records come from the event loop, which should seldom wait."""


class Subject(NamedTuple):
    """What is to be compared: what is ``beneath`` the directory ``top`` (``()`` is all), with which manifest."""

    top: str
    beneath: Parts
    manifest: str


def tree_of(path: str) -> tuple[str, Parts]:
    """The directory to be opened for ``path``, and the name in it if ``path`` is no directory."""
    if os.path.isdir(path):
        return path, ()
    _check_there(path)
    return os.path.dirname(path) or ".", (os.fsencode(os.path.basename(path)),)


def _check_there(path: str) -> None:
    if not os.path.lexists(path):
        raise NotFound(f"{printable(path)}: no such file or directory")


def subject_of(path: str, manifest: str | None) -> Subject:
    """With which manifest, if none is named: that beside ``path``, or else beside a directory above it."""
    if manifest is not None:
        return Subject(*tree_of(path), manifest)
    whole = top = os.path.realpath(path)
    while top != os.path.sep:
        if os.path.isfile(top + SUFFIX):
            if top == whole:
                return Subject(*tree_of(whole), top + SUFFIX)
            return Subject(top, inside(whole, top) or (), top + SUFFIX)
        top = os.path.dirname(top)
    _check_there(path)
    raise NotFound(
        f"{printable(path)} has no manifest beside it ({printable(os.path.basename(whole))}{SUFFIX}), nor has a "
        "directory above; name one with --manifest FILE, or make one with --create FILE"
    )


@contextmanager
def reading(path: str) -> Iterator[Reader]:
    """An existing manifest."""
    name = printable(path)
    try:
        file = open(path, "rb")  # noqa: SIM115  # closed below
    except OSError as error:
        raise from_os_error(error, name) from None
    with file:
        yield Reader(file, name)


def check_replaceable(path: str) -> bool:
    """Whether there is a manifest of that name. Raises :class:`UsageError` if it is something else's."""
    name = printable(path)
    try:
        facts = os.stat(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise from_os_error(error, name) from None
    if not stat.S_ISREG(facts.st_mode):
        raise UsageError(f"{name}: it is not a regular file; name another one for the manifest")
    with reading(path):
        return True


def begin(path: str, chunk_size: int) -> Ledger:
    """What a transfer is to keep in the manifest ``path``, which begins with what that says already.

    Fails now if it could not be written then.
    """
    from fsmux.moving.ledger import Ledger

    _without_name(os.path.realpath(path)).close()
    if not check_replaceable(path):
        return Ledger(chunk_size)
    with reading(path) as reader:
        if reader.chunk_size != chunk_size:
            fitting = format_exact(reader.chunk_size)
            raise UsageError(
                f"{printable(path)}: it has chunks of {fitting}; add --chunk-size {fitting}, or name another file"
            )
        return Ledger(chunk_size, reader)


def keep(path: str, ledger: Ledger) -> events.ManifestWritten:
    """Write what a transfer has kept."""
    with replacing(path) as file:
        writer = Writer(file, ledger.chunk_size)
        for record in ledger:
            writer.add(record)
        writer.close()
    return events.ManifestWritten(path, writer.files, writer.bytes, ledger.bytes_read)


@contextmanager
def replacing(path: str) -> Iterator[IO[bytes]]:
    """A file to write to, which gets its name when the block ends well."""
    path = os.path.realpath(path)
    try:
        with _without_name(path) as spool:
            yield spool
            spool.flush()
            spool.seek(0)
            _publish(spool, path)
    except OSError as error:  # what else the block reads or writes fails with typed errors
        raise from_os_error(error, printable(path)) from None


def _without_name(path: str) -> IO[bytes]:
    """A file in the directory of ``path``; it is gone when it is closed."""
    try:
        return tempfile.TemporaryFile(dir=os.path.dirname(path), buffering=BUFFER)
    except OSError as error:
        raise from_os_error(error, printable(path)) from None


def _publish(spool: IO[bytes], path: str) -> None:
    directory = os.path.dirname(path)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    temporary = f"{path}.{os.urandom(6).hex()}.tmp"
    try:
        with open(temporary, "xb") as file:
            shutil.copyfileobj(spool, file, BUFFER)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        os.fsync(fd)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        os.close(fd)


def inside(path: str, directory: str) -> Parts | None:
    """The components of ``path`` beneath ``directory``, if it is there."""
    whole, top = os.path.realpath(path), os.path.realpath(directory)
    if os.path.commonpath([whole, top]) != top:
        return None
    return tuple(os.fsencode(os.path.relpath(whole, top)).split(b"/"))
