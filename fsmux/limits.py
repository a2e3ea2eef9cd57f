"""Every limit and tuning constant that more than one layer knows, with its unit and its reason.

Figures marked *measured* come from loopback and tmpfs on two cores; ``benchmarks/`` repeats them.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# ---- frames --------------------------------------------------------------------------------------------------------

MAX_UNSEALED_PAYLOAD: Final = 20 * KIB
"""Bytes of a message up to which its frame's checksum is enough. That is a CRC-32 folded to 16 bits, and with the fold
goes the promise to find every single bit that flips: the first one it overlooks has 21,503 bytes of the frame behind
it. What is longer has a whole CRC-32 behind it."""

MAX_CONTROL_PAYLOAD: Final = 64 * KIB
"""Bytes. The largest message, which is that of a thousand names and why none of them can be read. Longer lists take
several messages."""

MAX_PREAUTH_PAYLOAD: Final = 4 * KIB
"""Bytes. HELLO and the SASL steps are a few hundred bytes; a stranger gets to send no more."""

MAX_DATA_PAYLOAD: Final = 4 * MIB
"""Bytes. A frame once begun is finished, so this bounds how long one stream can hold the socket."""

MIN_FRAME: Final = 64 * KIB
"""Bytes. Below it the cost of a frame in Python (about 40 µs on both sides, measured) outweighs its bytes."""

FRAME_SECONDS: Final = 0.005
"""Seconds that one DATA frame may occupy the link: what a small request waits for, beside the kernel's queue."""

# ---- files ---------------------------------------------------------------------------------------------------------

CHUNK_SIZE: Final = 4 * MIB
"""Bytes. Unit of CRC and of resume: 1 GiB has 256 of them, and a lost one costs 0.3 s at 100 Mbit/s."""

MIN_CHUNK_SIZE: Final = 64 * KIB
MAX_CHUNK_SIZE: Final = 64 * MIB

MAX_CHUNKS: Final = 2**20
"""Chunks of one file; above it the chunk size doubles, so that a manifest stays within some tens of MiB."""

MIN_HOLE: Final = 512
"""Bytes of a hole that is worth a word: the smallest block of any file system. What comes shorter is sent."""

MAX_ATTEMPTS: Final = 3
"""Times a chunk, or a small file, may arrive damaged. TCP misses 1 damaged segment in 65,536; three in one chunk are no
accident."""

MAX_FILE_SIZE: Final = 2**62
"""Bytes. Sums of two of these still fit a signed 64-bit offset."""

MAX_NAME: Final = 255
"""Bytes of one path component: the limit of every Linux file system."""

MAX_XATTRS: Final = 4 * KIB
"""Bytes of the extended attributes of one entry, names and values and ``XATTR_COST`` for each: they travel in the
message that names it, beside the longest path and link. It is what ext4 has room for where files have small inodes."""

XATTR_COST: Final = 16
"""Bytes that an extended attribute counts as beside its name and its value: more than it takes in a message, and what
ext4 takes for it."""

MAX_PATH_BYTES: Final = 4095
"""Bytes of a whole path (PATH_MAX without the terminator)."""

MAX_PATH_PARTS: Final = 255
"""Components of a path."""

SMALL_FILE: Final = 256 * KIB
"""Bytes of a file up to which it travels in a pack, whatever stands in its place. What is larger may be found to be
equal to that, or to another file there, which is worth a session of its own."""

MEDIUM_FILE: Final = CHUNK_SIZE
"""Bytes of a file up to which it travels in a pack if nothing stands in its place. A session costs about 2 ms of both
sides' time, a byte in a pack one more copy: 1,024 files of 2.25 MiB took 3.5 s down and 3.2 up in sessions and take 2.7
and 2.6 in packs, 512 of 4 MiB about the same in both (measured). It is less where the link is slow or may be
(:mod:`fsmux.moving.pacing`): a session keeps what has come of a file, a pack does not."""

PACK_BYTES: Final = 2 * MIB - 256 * KIB
"""Bytes of contents that a pack is filled up to on a fast link: it takes some ms to write, so that what a pack costs by
itself is little, and leaves room for a file that grows to ``MEDIUM_FILE`` meanwhile. A source tree of 57,000 files took
4.9 s down with packs of 1 MiB, 4.5 with 2 and 4.4 with 3 (measured)."""

MAX_PACK_BYTES: Final = 6 * MIB
"""Bytes of contents of one pack, which its receiver holds in memory. More than are packed, because files grow."""

PACKS_AHEAD: Final = 16
"""Packs on their way: 32 MiB fill 2.5 Gbit/s at 100 ms, and of small files there are 16,000 in them."""

# ---- transfers -----------------------------------------------------------------------------------------------------

MAX_FILES_AT_ONCE: Final = 4096
"""Files that one transfer has on their way at once: a quarter of the streams that a peer allows."""

MAX_LANES: Final = 64
"""Connections of one transfer: a sixteenth of what a server takes."""

# ---- streams and credit --------------------------------------------------------------------------------------------

MAX_STREAMS: Final = 16_384
"""Streams that a peer may have open at once on one connection. An idle one costs less than 8 KiB (measured by
``benchmarks/mux.py``)."""

INITIAL_CREDIT: Final = 256 * KIB
"""Bytes that may be sent on a new stream before its receiver grants anything: small files need no round trip."""

EAGER_CREDIT: Final = 16 * MIB
"""Bytes, summed over all streams of a connection that have not been granted anything yet."""

RECEIVE_BUDGET: Final = 64 * MIB
"""Bytes that one connection may be owed or hold in buffers. It bounds memory, not use: with a disk that keeps up, only
a few MiB of it are ever touched."""

MIN_WINDOW: Final = 1 * MIB
"""Bytes a stream is granted at once, if it is still to receive as many. Streams that the budget cannot serve at once
take turns, because a thousand windows of 64 KiB would mean a thousand small frames."""

INITIAL_WINDOW: Final = 16 * MIB
"""Bytes. What the kernel's two queues hold on loopback (about 8 MiB), and two hops to the disk. With 8 MiB the sender
ran out of credit every 4 MiB (measured)."""

MAX_WINDOW: Final = 32 * MIB
"""Bytes. Fills 2.5 Gbit/s at 100 ms; half of the budget, so that no stream can hold all of it."""

ASKED_WINDOW: Final = 3 * MIB
"""Bytes that a window counts as at most while somebody asks small things and the peer is near. An answer waits behind
all that is under way, and the kernel's queues hold most of a window. This is one unit that is being written, and half
of one behind it to go on with until credit has come back. Beside a download at 1.3 GB/s the slowest hundredth of
``stat`` took 6.3 ms with 3 MiB, 8.1 with 5 and 9.5 with 6; beside 4 streams 14 ms with 3 MiB and 25 with 6. The
download of 1 GiB was as fast, one of files of 16 MiB on one stream lost 9 %; 2 MiB would cost it a third (measured).
"""

STREAM_BACKLOG: Final = 2048
"""Frames that may wait unread on a stream. Credit bounds their bytes; this bounds small and control frames. The largest
window in the smallest chunks is 512 of DATA, each with its CHUNK and perhaps a SPAN of its own."""

MAX_UNREAD: Final = 16 * MIB
"""Bytes of messages without credit that may wait unread on all streams of one connection: as many requests as there may
be streams, with long names, are 8 MiB."""

MESSAGE_COST: Final = 256
"""Bytes that a message counts as there beside its own: what the objects take that it becomes."""

MAX_QUEUED_PAYLOAD: Final = 32 * MIB
"""Bytes of packs and listings that one connection holds until they can be sent: four of the largest packs and more.
Beyond it a stream has one of them."""

MAX_QUEUED_CONTROL: Final = 16 * MIB
"""Bytes of control frames waiting for a peer that does not read. Beyond it the connection ends. Requests on as many
streams as there may be, with long names, find room, as they do at the peer (``MAX_UNREAD``)."""

# ---- input and output ----------------------------------------------------------------------------------------------

HOP_BYTES: Final = 4 * MIB
"""Bytes moved per hop to a worker thread. A hop costs 70 to 100 µs, so 256 KiB a hop would cost half the throughput
(measured: 0.95 against 2.5 GB/s)."""

NOTSENT_LOWAT: Final = 1 * MIB
"""Bytes of unsent data that the kernel may queue (TCP_NOTSENT_LOWAT). Trio's own 16 KiB makes one sendfile call move
0.27 MB instead of 2 MB (measured)."""

# ---- time ----------------------------------------------------------------------------------------------------------

HANDSHAKE_SECONDS: Final = 10.0
"""Seconds from accepting a connection to its authentication, whatever the peer sends meanwhile."""

CONNECT_SECONDS: Final = 15.0
"""Seconds to reach a server, names and all addresses included."""

KEEPALIVE_SECONDS: Final = 15.0
"""Seconds of silence after which a PING is sent."""

DEAD_SECONDS: Final = 45.0
"""Seconds of silence after which the connection counts as lost."""

DRAIN_SECONDS: Final = 5.0
"""Seconds that an orderly end waits for frames still queued."""

HURRY_SECONDS: Final = 0.5
"""Seconds that an end by an error or a signal waits for the frame that says so."""

# ---- the interpreter -----------------------------------------------------------------------------------------------

GC_STARTING: Final = 200_000
"""Objects between two searches for cycles while a command starts. Its imports make 65,000, all of which stay, and one
search among them takes 8 ms; with Python's own 700 they take 20 ms (measured)."""

GC_RUNNING: Final = 50_000
"""The same while it runs, when only what it makes itself is searched."""

SWITCH_SECONDS: Final = 0.000_05
"""Seconds after which a thread lets another one run Python that waits for it; Python's own 5 ms are as long as half of
what a small request may take while bulk data moves, and so long a thread that writes small files stands still. ``stat``
during a download: 99th percentile 8.0 ms instead of 8.9; 100,000 files of 1 KiB down 1.70 s instead of 1.73, a source
tree 3.27 instead of 3.40, up 3.30 instead of 3.60; CPU the same (medians of 7, 12 and 8 pairs)."""
