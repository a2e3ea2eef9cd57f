"""What can be observed of a transfer: frozen records, and the one-method observer that receives them.

Theory: progress bars, plain lines, ``--json``, logs and metrics are consumers of the *same* records, so that they
cannot disagree, and so that the code which moves bytes knows none of them.  Emitting is a plain synchronous call; an
observer must return at once and must not raise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

from fsmux.records import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fsmux.records import Extent, Parts


class Event(Struct, frozen=True):
    """Base of all records."""


class MappedTo(Event, frozen=True):
    """Where one source goes: ``text`` is ``SOURCE -> DESTINATION``."""

    text: str


class WouldDo(Event, frozen=True):
    """What a dry run would do now: ``action`` (``send``, ``make directory``…) with ``path``."""

    action: str
    path: str
    bytes: int


class Scanning(Event, frozen=True):
    """The source tree is still being read: so many files and bytes that are to be sent were found until now."""

    files: int
    bytes: int


class Planned(Event, frozen=True):
    """The scan ended: what is or will be sent, and what is up to date already.  Much may have arrived before."""

    files: int
    bytes: int
    skipped: int
    skipped_bytes: int


class FileStarted(Event, frozen=True):
    """A session for one file began. ``resumed`` bytes of ``size`` were at the destination already."""

    path: str
    size: int
    resumed: int


class FileProgress(Event, frozen=True):
    """``bytes`` more payload bytes of this file arrived at (or left for) the other side.

    Less than none: of what was to leave, so many bytes stayed here because the connection was lost.
    """

    path: str
    bytes: int


class FileReused(Event, frozen=True):
    """``bytes`` of an earlier version of this file, which the destination holds, need not travel."""

    path: str
    bytes: int


class FileHoles(Event, frozen=True):
    """``bytes`` of this file are holes, of which the destination knows now without any having been sent."""

    path: str
    bytes: int


class FileDone(Event, frozen=True):
    """A file stands whole under its final name.

    ``bytes_sent`` counts payload bytes that crossed the wire in this run, ``bytes_resumed`` those that the
    destination held before.  ``digest`` is the CRC-32 of the whole file, eight hexadecimal digits.  ``durable`` says
    whether the receiver had it on stable storage when it said so.
    """

    path: str
    bytes: int
    bytes_sent: int
    bytes_resumed: int
    digest: str
    durable: bool


class FileCopied(Event, frozen=True):
    """What a file is was at the destination already, as ``source``, and was copied there: nothing of it travelled."""

    path: str
    source: str
    bytes: int


class FileSkipped(Event, frozen=True):
    """A file was left alone, and why (``up to date``, ``special file``…)."""

    path: str
    bytes: int
    reason: str


class FilesDone(Event, frozen=True):
    """Small files of one directory that travelled together stand whole under their final names: many a FileDone."""

    directory: Parts
    names: Sequence[bytes]
    sizes: Sequence[int]
    crcs: Sequence[int]
    durable: bool

    @property
    def bytes(self) -> int:
        return sum(self.sizes)

    def each(self) -> Iterator[FileDone]:
        """The same, one by one."""
        for name, size, crc in zip(self.names, self.sizes, self.crcs, strict=True):
            yield FileDone(printable((*self.directory, name)), size, size, 0, f"{crc:08x}", self.durable)


class FileLinked(Event, frozen=True):
    """A file stands as one more name of another one of the same transfer; no byte of it travelled."""

    path: str


class FilesLinked(Event, frozen=True):
    """Files of one directory stand as further names of others: many a FileLinked."""

    directory: Parts
    names: Sequence[bytes]

    def each(self) -> Iterator[FileLinked]:
        """The same, one by one."""
        for name in self.names:
            yield FileLinked(printable((*self.directory, name)))


class FilesSkipped(Event, frozen=True):
    """Files of one directory were left alone for one reason: many a FileSkipped."""

    directory: Parts
    names: Sequence[bytes]
    sizes: Sequence[int]
    reason: str

    @property
    def bytes(self) -> int:
        return sum(self.sizes)

    def each(self) -> Iterator[FileSkipped]:
        """The same, one by one."""
        for name, size in zip(self.names, self.sizes, strict=True):
            yield FileSkipped(printable((*self.directory, name)), size, self.reason)


class Changed(Event, frozen=True):
    """Something else than sending was done to ``path``: the counterpart of a :class:`WouldDo` with this ``action``."""

    action: str
    path: str


class NamesChanged(Event, frozen=True):
    """The same was done to names of one directory: many a Changed."""

    action: str
    directory: Parts
    names: Sequence[bytes]

    def each(self) -> Iterator[Changed]:
        """The same, one by one."""
        for name in self.names:
            yield Changed(self.action, printable((*self.directory, name)))


MAKE_DIRECTORY, MAKE_LINK, ADJUST, REMOVE = "make directory", "make link", "set attributes of", "remove"
"""What can be done beside sending."""


class ChunkHealed(Event, frozen=True):
    """A chunk arrived damaged and was asked for again."""

    path: str
    index: int
    attempt: int


class Retrying(Event, frozen=True):
    """The connection or a file failed and will be tried again after ``delay`` seconds."""

    path: str
    attempt: int
    delay: float
    message: str


class FileFailed(Event, frozen=True):
    """A file was given up. ``code`` is the name of an :class:`fsmux.errors.ErrorCode`."""

    path: str
    code: str
    message: str
    retryable: bool


class Warned(Event, frozen=True):
    """Something a person should know that failed nothing."""

    path: str
    message: str


class Summary(Event, frozen=True):
    """The last record of a transfer; its fields add up the records before it."""

    files: int
    bytes: int
    bytes_sent: int
    bytes_resumed: int
    skipped: int
    failed: int
    retries: int
    seconds: float
    deleted: int = 0
    """Names that were removed because the source has none of them; of a directory with all in it, one."""
    copied: int = 0
    """Files of which nothing travelled because the destination had them under another name."""


class FileDamaged(Event, frozen=True):
    """A file is not what its manifest says: ``chunks`` are the ranges that differ, ``reason`` is for a person."""

    path: str
    bytes: int
    chunks: Sequence[Extent]
    reason: str


class FileMissing(Event, frozen=True):
    """A file of the manifest is not there."""

    path: str
    bytes: int


class FileExtra(Event, frozen=True):
    """A file is there and not in the manifest."""

    path: str
    bytes: int


class FileRepaired(Event, frozen=True):
    """A file is again what its manifest says; so many bytes of it came from the source."""

    path: str
    bytes: int
    bytes_sent: int


class ManifestWritten(Event, frozen=True):
    """A manifest was written to ``path``.  ``bytes_read`` of its files were read for it beside their transfer."""

    path: str
    files: int
    bytes: int
    bytes_read: int


class ConnectionOpened(Event, frozen=True):
    """Server side: a peer connected. ``peer`` is printable."""

    peer: str


class ConnectionClosed(Event, frozen=True):
    """Server side: a peer left. ``reason`` is empty for an orderly end."""

    peer: str
    user: str
    seconds: float
    reason: str


class Authenticated(Event, frozen=True):
    """Server side: the peer proved to be ``user`` (empty where no authentication is asked for)."""

    peer: str
    user: str


class RequestFailed(Event, frozen=True):
    """Server side: a request ended with an error that was reported to the peer."""

    peer: str
    request: str
    code: str
    message: str


Observer: TypeAlias = "Callable[[Event], None]"


def ignore(event: Event) -> None:
    """The observer that looks at nothing."""
