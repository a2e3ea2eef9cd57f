"""What a server does about trees: list them, pack what is asked for, and store what comes in packs.

Theory: a listing is read, planned and sent in groups of columns, one hop to a thread for a thousand entries.  The
server knows no plan: the client compares, and says what is to be sent or what is to stand.
"""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from fsmux.columns import Act, Group, Packer
from fsmux.errors import ProtocolError
from fsmux.files import leftovers, listing
from fsmux.files.comparing import digests
from fsmux.files.packing import read_pack
from fsmux.files.unpacking import Unpacker
from fsmux.limits import MAX_FILE_SIZE, MEDIUM_FILE, MIN_WINDOW, NOTSENT_LOWAT, PACK_BYTES
from fsmux.moving.pacing import Pace
from fsmux.mux.service import all_of
from fsmux.plan.plan import unasked
from fsmux.plan.walk import Ahead, batches, preorder
from fsmux.transfer.disk import poll
from fsmux.transfer.packs import PackSender, receive_packs, send_pack
from fsmux.wire.frames import BRIEF_FEATURE
from fsmux.wire.messages import Ask, Digest, Digests, Failed, Fault, Fetch, Listed, Look, Ok, Pack, Packed, Store, Walk

if TYPE_CHECKING:
    from collections.abc import Generator

    from fsmux.context import Context
    from fsmux.files.terms import Failure
    from fsmux.mux.stream import Stream


ASKED_AHEAD: Final = MIN_WINDOW
"""Bytes of questions for packs that a client may have on their way. Credit is given for so many and no more, as long as
they are not asked: a conversation that waits keeps nothing from those that bring files."""

KERNEL_HOLDS: Final = 2 * NOTSENT_LOWAT
"""Bytes of a tree that are sent before it is looked at how fast they go: the kernel takes them at once."""


async def walk_tree(context: Context, stream: Stream, request: Walk) -> None:
    """A whole tree, directories before what is in them; with its small files if it is all to be made."""
    found = preorder(
        lambda parts: listing.groups(context.root, parts, request.owners, request.xattrs, told=True), request.path
    )
    async with context.trees:
        if request.pack_bytes:
            await _send_packs(context, stream, request, found)
        else:
            await _send_groups(context, stream, found)
    await stream.send(Ok(), end=True)


async def _send_packs(context: Context, stream: Stream, request: Walk, found: Generator[Group, None, None]) -> None:
    """Send a tree with its contents: one pack is read while the one before it is sent."""
    packer, ahead, sender = Packer(min(request.pack_bytes, PACK_BYTES)), Ahead(found), PackSender(stream)

    def read_packs() -> Generator[tuple[Pack, memoryview], None, None]:
        for groups in packer.all(part for group in ahead for part in unasked(group, min(request.medium, MEDIUM_FILE))):
            contents = read_pack(context.root, request.path, groups, sender.take)
            yield Pack(0, tuple(groups), ahead.files, min(ahead.bytes, MAX_FILE_SIZE), ahead.ended), contents

    ready_in, ready = trio.open_memory_channel[tuple[Pack, memoryview]](0)

    async def read() -> None:
        with ready_in, closing(found), closing(read_packs()) as hops:
            while (pack := await context.disk.pack(next, hops, None)) is not None:
                while ahead.may_read and not ready.statistics().tasks_waiting_receive:  # the link has enough to do
                    await context.disk.pack(ahead.read_on)
                await ready_in.send(pack)

    async def send() -> None:
        pace, sent = Pace(None, far=True), 0
        async for pack, contents in ready:
            await sender.send(pack, contents)
            sent += len(contents)
            if sent <= KERNEL_HOLDS:
                pace.resume(trio.current_time())
            else:
                pace.done(len(contents), sum(map(len, pack.groups)), trio.current_time())
                packer.most_bytes = pace.pack_bytes

    await all_of(read, send)


async def look(context: Context, stream: Stream, request: Look) -> None:
    """Directories that are asked for, one after the other."""
    listings = listing.Listings(context.root, request.path, request.owners, request.xattrs)
    message: object = request
    stream.expect(0)  # what is asked takes no credit
    while message is not None:
        if not isinstance(message, Look):
            raise ProtocolError(f"a look is not followed by {type(message).__name__}")
        async with context.looks:  # for one answer: nobody waits for another conversation to end
            await _send_groups(context, stream, listings.of(message.directories))
        message = await stream.receive()
    stream.end()


async def _send_groups(context: Context, stream: Stream, found: Generator[Group, None, None]) -> None:
    """Send groups as they are found, as many to a message as fit; the first ones do not wait for others."""
    with closing(found), closing(batches(found)) as hops:
        while (batch := await context.disk.pack(next, hops, None)) is not None:
            for groups in Packer(MAX_FILE_SIZE).all(batch):
                await stream.send(Listed(tuple(groups)))


async def digest(context: Context, stream: Stream, request: Digest) -> None:
    """Read files for their digests, as long as any are asked for."""
    base = request.path
    message: object = request

    def wanted() -> None:
        poll()
        if stream.error is not None:  # the client has gone, or wants no more
            raise stream.error

    stream.expect(0)  # what is asked takes no credit
    while message is not None:
        if not isinstance(message, Digest):
            raise ProtocolError(f"a digest is not followed by {type(message).__name__}")
        with closing(digests(context.root, base, message.groups, wanted)) as found:
            while True:
                async with context.digesting:
                    batch = await context.disk.read(next, found, None)
                if batch is None:
                    break
                await stream.send(Digests(tuple(batch)))
        message = await stream.receive()
    stream.end()


async def fetch(context: Context, stream: Stream, request: Fetch) -> None:
    """Pack what the client asks for, until it asks for nothing more."""
    brief, sender = BRIEF_FEATURE in stream.peer_features, PackSender(stream)
    stream.expect(ASKED_AHEAD)
    while (ask := await stream.receive()) is not None:
        stream.expect(ASKED_AHEAD)
        if not isinstance(ask, Ask):
            raise ProtocolError(f"a pack cannot be asked for by {type(ask).__name__}")
        for group in ask.groups:
            group.as_asked = brief
        async with context.packs:
            await send_pack(sender, context.disk, context.root, request.path, ask.number, ask.groups, read_pack)
    stream.end()


async def store(context: Context, stream: Stream, request: Store) -> None:
    """Write the packs that come."""
    context.check_write()
    await context.for_run(request, partial(_store, context, stream, request))


async def _store(context: Context, stream: Stream, request: Store) -> None:
    durability = max(context.durability, request.durability)
    unpacker = Unpacker(context.root, request.path, durability, request.kept, verify=request.verify)
    # A server that was killed may have left something.
    unfinished = await context.disk.meta(leftovers.Superseding, context.root, request.path, context.owner)

    async def done(pack: Pack, failures: list[Failure]) -> None:
        unfinished.stand(pack.groups, failures)
        failed = [Failed(one.group, one.entry, Fault(one.error.code, str(one.error)), one.stands) for one in failures]
        await stream.send(Packed(pack.number, tuple(failed), unpacker.durable))

    async with context.stores:
        await receive_packs(stream, unpacker, context.disk, check=_accept, done=done)
    stream.end()
    await context.disk.meta(unfinished.sweep)


def _accept(pack: Pack) -> Pack:
    """The client decides what it sends; that it stays below the root is the unpacker's business."""
    if any(group.as_asked or group.act is Act.LIST for group in pack.groups):
        raise ProtocolError("a pack refers to what nobody asked for")
    return pack
