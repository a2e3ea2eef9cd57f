"""Files that the destination has already under another name, found by its manifest.

Theory: a manifest says what the destination had when it was made, and that is taken for a hint and nothing more.  The
name that it leads to is given to the receiver as one more place to take ranges from, as an earlier version is: the
receiver reads what stands there now, the sender says which chunks it finds equal in its own file, and these are copied
and digested while they are.  So a record that is wrong or old costs a read, and what is not equal is sent.

What moved or was renamed keeps its size and time of modification, so these are asked first.  A local source of which
only the size is known there is read for its digest; a remote one is not, because only the server could read it.  Small
files are not looked for: they travel in packs, faster than they are opened, compared and copied one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsmux.errors import FsmuxError, NetworkError
from fsmux.files.digestfile import chunks_of
from fsmux.files.reading import Wanted, read_record
from fsmux.limits import SMALL_FILE
from fsmux.sites import LocalSite
from fsmux.transfer.disk import poll

if TYPE_CHECKING:
    from fsmux.moving.ledger import Ledger
    from fsmux.records import Parts
    from fsmux.sites import Site
    from fsmux.transfer.disk import Disk


async def find_twin(ledger: Ledger, disk: Disk, source: Site, parts: Parts, size: int, listed: Parts) -> Parts:
    """The path of another file at the destination that may have the bytes of ``parts`` of ``source``; () if none has.

    ``listed`` is what the manifest calls the file that is to be sent.  Raises what only ends a connection may raise;
    a source that cannot be read is for its transfer to report.
    """
    if size <= SMALL_FILE or not ledger.has_size(size):
        return ()
    try:
        facts = await source.stat(parts, follow=not parts)
        found = ledger.of_version(size, facts.mtime_ns)
        if found in (None, listed) and isinstance(source, LocalSite):
            wanted = Wanted(parts, chunks_of(size, ledger.chunk_size))
            record = await disk.read(read_record, source.root, wanted, poll)
            found = ledger.of_digest(size, record.digest)
    except NetworkError:
        raise
    except FsmuxError:
        return ()
    return () if found in (None, listed) else found or ()
