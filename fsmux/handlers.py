"""What a server does for each request: a table from command to handler, and the dispatcher that uses it.

Theory: a stream's first message says what is asked; its handler owns the stream from there on.  A handler raises typed
errors, and :func:`dispatch` is the one place that turns them into an ERROR message, so that a request can fail in one
way only and never takes the connection with it.  What is unknown fails as UNSUPPORTED on its own stream.
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import trio

from fsmux.errors import ErrorCode, FsmuxError, IntegrityError, ProtocolError, Unsupported
from fsmux.events import RequestFailed
from fsmux.files.handle import Handle
from fsmux.files.opening import open_sink
from fsmux.files.source import Source
from fsmux.limits import CHUNK_SIZE, MAX_DATA_PAYLOAD
from fsmux.mux.buffers import Data
from fsmux.plan.walk import Listed, walk
from fsmux.range_handlers import create, take_data
from fsmux.records import Attrs, Kind, printable
from fsmux.transfer.disk import poll
from fsmux.transfer.receiver import Receiving
from fsmux.transfer.sender import send_file
from fsmux.transfer.session import Report
from fsmux.tree_handlers import digest, fetch, look, store, walk_tree
from fsmux.wire.frames import FileSpan, Meter
from fsmux.wire.messages import (
    Close,
    Create,
    Digest,
    Entries,
    Entry,
    Error,
    Fault,
    Fetch,
    Get,
    List,
    Look,
    Mkdir,
    Offer,
    Ok,
    Open,
    Put,
    Read,
    ReadDone,
    Remove,
    Rename,
    SetAttrs,
    Stat,
    Store,
    Symlink,
    Walk,
    Write,
    pages,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from fsmux.context import Context
    from fsmux.files.root import Root
    from fsmux.files.sink import Sink
    from fsmux.mux.stream import Stream
    from fsmux.records import Parts

logger = logging.getLogger("fsmux.server")

MAX_READ = 1 << 30
"""Bytes of one READ. More is asked for in several, so that CLOSE does not wait behind an endless one."""


async def dispatch(stream: Stream, context: Context) -> None:
    """Serve one stream that the peer opened. Never raises but for cancellation."""
    async with stream:
        request = "?"
        try:
            message: Any = await stream.receive()
            if message is None:
                return
            request = type(message).__name__.upper()
            handler = HANDLERS.get(type(message))
            if handler is None:
                raise Unsupported(f"{request} does not begin a conversation")
            await handler(context, stream, message)
        except FsmuxError as exc:
            _refuse(stream, context, request, exc.code, str(exc))
            exc.__traceback__ = None  # the stream may keep it, and its frames what was to be sent
        except Exception:
            logger.exception("a request failed unexpectedly (%s from %s)", request, context.peer)
            _refuse(stream, context, request, ErrorCode.INTERNAL, "the server failed unexpectedly; its log says more")
        except BaseException:  # cancelled: the server stops, which is no fault of this request
            stream.reset(ErrorCode.SHUTDOWN, "the server is shutting down")
            raise


def _refuse(stream: Stream, context: Context, request: str, code: ErrorCode, text: str) -> None:
    if stream.error is not None:
        return  # the peer or the connection ended it: nobody is there to be told
    context.observer(RequestFailed(context.peer, request, code.name, text))
    if not stream.local_ended:
        stream.send_nowait(Error(code, text[:1000]), end=True)


# ---- names and attributes -----------------------------------------------------------------------------------------


async def _stat(context: Context, stream: Stream, request: Stat) -> None:
    attrs = await context.disk.meta(context.root.stat, request.path, request.follow, request.owner, request.xattrs)
    await stream.send(attrs, end=True)


async def _list(context: Context, stream: Stream, request: List) -> None:
    async with context.listings:
        with closing(_listing(context.root, request.path, request.recursive)) as listing:
            while (page := await context.disk.meta(next, listing, None)) is not None:
                entries = tuple(_entry(listed) for listed in page)
                for message in pages(Entries(entries)):
                    await stream.send(message)
    await stream.send(Ok(), end=True)


def _listing(root: Root, path: Parts, recursive: bool) -> Generator[list[Listed], None, None]:
    if recursive:
        yield from walk(root.scan, path)
    else:
        for page in root.scan(path):
            yield [Listed((name,), attrs) for name, attrs in page]


def _entry(listed: Listed) -> Entry:
    fault = None if listed.error is None else Fault(listed.error.code, str(listed.error)[:1000])
    return Entry(listed.parts, listed.attrs, fault)


async def _mkdir(context: Context, stream: Stream, request: Mkdir) -> None:
    context.check_write()
    await context.disk.meta(context.root.mkdir, request.path, request.parents, request.mode, context.durability)
    await stream.send(Ok(), end=True)


async def _rename(context: Context, stream: Stream, request: Rename) -> None:
    context.check_write()
    await context.disk.meta(context.root.rename, request.source, request.target, request.replace, context.durability)
    await stream.send(Ok(), end=True)


async def _remove(context: Context, stream: Stream, request: Remove) -> None:
    context.check_write()
    await context.disk.meta(context.root.remove, request.path, request.recursive, context.durability, poll)
    await stream.send(Ok(), end=True)


async def _set_attrs(context: Context, stream: Stream, request: SetAttrs) -> None:
    context.check_write()
    durability = max(context.durability, request.durability)
    await context.disk.meta(context.root.set_attrs, request.path, request.attrs, durability, request.found_ns)
    await stream.send(Ok(), end=True)


async def _symlink(context: Context, stream: Stream, request: Symlink) -> None:
    context.check_write()
    durability = max(context.durability, request.durability)
    await context.disk.meta(context.root.symlink, request.path, request.target, request.attrs, durability)
    await stream.send(Ok(), end=True)


# ---- random access: the stream is the handle ----------------------------------------------------------------------


async def _open(context: Context, stream: Stream, request: Open) -> None:
    writing = request.write or request.create or request.truncate
    if writing:
        context.check_write()
    with ExitStack() as stack:
        stack.enter_context(context.handle())
        handle = stack.enter_context(
            await context.disk.meta(
                Handle.open, context.root, request.path, write=writing, create=request.create, truncate=request.truncate
            )
        )
        size = await context.disk.meta(handle.size)
        await stream.send(Attrs(Kind.FILE, size))
        while True:
            message = await stream.receive()
            match message:
                case Read():
                    if message.offset + message.length > size:  # it may have grown; without need this costs no hop
                        size = await context.disk.meta(handle.size)
                    await _read(stream, handle, message, size)
                case Write():
                    await _write(context, stream, handle, message)
                case Close(sync=sync):
                    if sync and handle.writable:
                        await context.disk.meta(handle.sync)
                    await stream.send(Ok(), end=True)
                    return
                case None:
                    return
                case _:
                    if isinstance(message, Data):
                        stream.consumed(message)
                    raise ProtocolError(f"a handle cannot be asked for {type(message).__name__}")


async def _read(stream: Stream, handle: Handle, request: Read, size: int) -> None:
    length = max(0, min(request.length, size - request.offset, MAX_READ))
    meter = Meter()
    await stream.send_data(FileSpan(handle.lease, request.offset, length, meter))
    stream.send_later(ReadDone.CMD, lambda: ReadDone(length, meter.crc32))


async def _write(context: Context, stream: Stream, handle: Handle, request: Write) -> None:
    """Take one range; nothing is written unless all of it came and its CRC-32 is right."""
    stream.expect(min(request.length, MAX_DATA_PAYLOAD))
    received: list[Data] = []
    try:
        views = await take_data(stream, request, received)
        stream.expect(0)
        found = await context.disk.read(handle.crc32, views)
        if found != request.crc32:
            raise IntegrityError(f"the range at {request.offset} arrived damaged; nothing was written, write it again")
        with trio.CancelScope(shield=True):  # the buffers are the thread's until it is done: one write of 4 MiB
            await context.disk.meta(handle.write, views, request.offset)
    finally:
        for data in received:
            stream.consumed(data)
    await stream.send(Ok())


# ---- transfers ----------------------------------------------------------------------------------------------------


async def _get(context: Context, stream: Stream, request: Get) -> None:
    with ExitStack() as stack:
        stack.enter_context(context.handle())
        source = stack.enter_context(await context.disk.meta(Source.open, context.root, request.path))
        await send_file(
            stream,
            source,
            disk=context.disk,
            digests=context.digests,
            report=Report(source.name),
            chunk_size=request.chunk_size or CHUNK_SIZE,
            eager=request.fresh,
        )


async def _put(context: Context, stream: Stream, request: Put) -> None:
    context.check_write()

    def open_for(offer: Offer) -> Sink:
        context.kept.keep()
        return open_sink(
            context.root,
            request.path,
            offer.identity,
            offer.mode,
            offer.chunk_size,
            owner=context.owner,
            resume=not (request.no_resume or offer.eager),
            durability=max(context.durability, request.durability),  # each side gets at least what it asks for
            kept=request.kept,
            attrs=request.attrs,
            verify=request.verify,
            like=request.like,
            holes=offer.holes,
            clock=time.monotonic,
            poll=poll,
        )

    streams = request.streams

    def begin() -> Receiving:
        return Receiving(open_for, context.disk, Report(printable(request.path)), streams=streams, joint=streams > 1)

    async def receive() -> None:
        if request.join:
            await context.desk.receive_on(stream, (context.owner, request.path, request.join), begin)
        else:
            await begin().receive_on(stream)

    await context.for_run(request, receive)


HANDLERS: dict[type, Callable[[Context, Stream, Any], Awaitable[None]]] = {
    Stat: _stat,
    List: _list,
    Mkdir: _mkdir,
    Rename: _rename,
    Remove: _remove,
    SetAttrs: _set_attrs,
    Symlink: _symlink,
    Open: _open,
    Create: create,
    Get: _get,
    Put: _put,
    Store: store,
    Fetch: fetch,
    Walk: walk_tree,
    Look: look,
    Digest: digest,
}
