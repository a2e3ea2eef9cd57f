"""The HELLO that both sides send, and the two sides of authentication driven over a connection."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fsmux import limits
from fsmux._version import __version__
from fsmux.errors import FsmuxError
from fsmux.wire.frames import (
    BRIEF_FEATURE,
    CHOWN_FEATURE,
    FINISH_FEATURE,
    GIVEN_FEATURE,
    HOLES_FEATURE,
    JOIN_FEATURE,
    KEPT_FEATURE,
    LINKS_FEATURE,
    OWNERS_FEATURE,
    PACE_FEATURE,
    PACKS_FEATURE,
    SYNC_FEATURE,
    UNASKED_FEATURE,
    VERSION,
    XATTRS_FEATURE,
)
from fsmux.wire.messages import Hello

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsmux.auth import ClientAuth, ServerAuth, User
    from fsmux.mux.connection import Connection

FEATURES: tuple[str, ...] = (
    PACE_FEATURE, JOIN_FEATURE, PACKS_FEATURE, LINKS_FEATURE, SYNC_FEATURE, HOLES_FEATURE, KEPT_FEATURE,
    OWNERS_FEATURE, GIVEN_FEATURE, BRIEF_FEATURE, FINISH_FEATURE, UNASKED_FEATURE,
)  # fmt: skip
"""Optional parts of the protocol that this side speaks beyond version 1."""


def hello(mechanisms: Sequence[str] = (), *, read_only: bool = False) -> Hello:
    """What this side speaks and allows."""
    return Hello(
        min_version=VERSION,
        max_version=VERSION,
        features=_features(),
        agent=f"fsmux/{__version__}",
        max_streams=limits.MAX_STREAMS,
        initial_credit=limits.INITIAL_CREDIT,
        eager_credit=limits.EAGER_CREDIT,
        mechanisms=tuple(mechanisms),
        read_only=read_only,
    )


def _features() -> tuple[str, ...]:
    """With what depends on the platform and on who runs this."""
    has_xattrs, is_root = hasattr(os, "setxattr"), os.geteuid() == 0
    return (*FEATURES, *[XATTRS_FEATURE] * has_xattrs, *[CHOWN_FEATURE] * is_root)


async def prove_to_client(connection: Connection, auth: ServerAuth) -> User:
    """The server's side of AUTH. Raises :class:`AuthError`, which the connection passes on to the peer."""
    exchange = auth.start()
    while True:
        reply, user = exchange.step(await connection.receive_auth())
        await connection.send_auth(reply)
        if user is not None:
            return user


async def prove_to_server(connection: Connection, auth: ClientAuth) -> None:
    """The client's side of AUTH, behind its first message, which went with its HELLO.

    Raises :class:`AuthError` if either side cannot prove that it knows the token.
    """
    if not auth.wanted(connection.peer_hello.mechanisms):
        return
    try:
        while (reply := auth.step(await connection.receive_auth())) is not None:
            await connection.send_auth(reply)
    except FsmuxError as exc:
        raise connection.failure or exc from None
