from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmux.errors import ProtocolError
from fsmux.wire.frames import Cmd
from fsmux.wire.state import (
    ANSWERER_COMMANDS,
    CONNECTION_COMMANDS,
    OPENER_COMMANDS,
    STREAM_TABLE,
    ConnectionPhase,
    Role,
    StreamInput,
    StreamState,
    first_id,
    legal,
    next_state,
    opened_by,
)

MIRROR = {
    StreamState.HALF_CLOSED_LOCAL: StreamState.HALF_CLOSED_REMOTE,
    StreamState.HALF_CLOSED_REMOTE: StreamState.HALF_CLOSED_LOCAL,
}
OPPOSITE = {
    StreamInput.SEND: StreamInput.RECV,
    StreamInput.SEND_END: StreamInput.RECV_END,
    StreamInput.SEND_RESET: StreamInput.RECV_RESET,
}
PAIRS = list(itertools.product(StreamState, StreamInput))


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_every_pair_moves_or_raises(state: StreamState, event: StreamInput) -> None:
    if event in STREAM_TABLE[state]:
        assert next_state(state, event) is STREAM_TABLE[state][event]
    else:
        with pytest.raises(ProtocolError, match=f"{event.name} on a stream that is {state.name}"):
            next_state(state, event)


def test_illegal_pairs_are_exactly_these() -> None:
    illegal = {(state, event) for state, event in PAIRS if event not in STREAM_TABLE[state]}
    assert illegal == {
        (StreamState.HALF_CLOSED_LOCAL, StreamInput.SEND),
        (StreamState.HALF_CLOSED_LOCAL, StreamInput.SEND_END),
        (StreamState.HALF_CLOSED_REMOTE, StreamInput.RECV),
        (StreamState.HALF_CLOSED_REMOTE, StreamInput.RECV_END),
        (StreamState.CLOSED, StreamInput.SEND),
        (StreamState.CLOSED, StreamInput.SEND_END),
    }


@given(st.lists(st.sampled_from(StreamInput)))
def test_nothing_leaves_closed_and_nothing_returns_to_idle(events: list[StreamInput]) -> None:
    state = StreamState.IDLE
    for event in events:
        before = state
        try:
            state = next_state(state, event)
        except ProtocolError:
            continue
        assert state is not StreamState.IDLE
        assert before is not StreamState.CLOSED or state is StreamState.CLOSED


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(sorted(OPPOSITE, key=lambda e: e.name)))))
def test_two_sides_without_delay_stay_mirror_images(steps: list[tuple[bool, StreamInput]]) -> None:
    states = {True: StreamState.IDLE, False: StreamState.IDLE}
    for side, event in steps:
        try:
            after = next_state(states[side], event)
        except ProtocolError:
            continue
        states[side] = after
        states[not side] = next_state(states[not side], OPPOSITE[event])
        assert states[not side] is MIRROR.get(after, after)


def test_ids() -> None:
    assert (first_id(Role.CLIENT), first_id(Role.SERVER)) == (1, 2)
    assert opened_by(1) is opened_by(2**32 - 1) is Role.CLIENT
    assert opened_by(2) is opened_by(2**32 - 2) is Role.SERVER
    assert Role.CLIENT.peer is Role.SERVER
    assert Role.SERVER.peer is Role.CLIENT
    with pytest.raises(ValueError, match="connection itself"):
        opened_by(0)


P = ConnectionPhase


@pytest.mark.parametrize(
    ("phase", "on_connection"),
    [
        (P.GREETING, {Cmd.HELLO, Cmd.GOAWAY}),
        (P.AUTHENTICATING, {Cmd.AUTH, Cmd.GOAWAY}),
        (P.OPEN, {Cmd.PING, Cmd.PONG, Cmd.CREDIT, Cmd.GOAWAY, Cmd.PACE}),
        (P.DRAINING, {Cmd.PING, Cmd.PONG, Cmd.CREDIT, Cmd.GOAWAY, Cmd.PACE}),
        (P.CLOSED, set()),
    ],
)
def test_all_65536_commands_in_every_phase(phase: ConnectionPhase, on_connection: set[Cmd]) -> None:
    assert {cmd for cmd in range(2**16) if legal(phase, cmd, 0)} == on_connection
    streams = {cmd for cmd in range(2**16) if legal(phase, cmd, 1)}
    if phase in (P.OPEN, P.DRAINING):
        assert streams == set(range(2**16)) - CONNECTION_COMMANDS
    else:
        assert not streams


def test_who_may_say_what_on_a_stream() -> None:
    assert set(Cmd) - CONNECTION_COMMANDS == OPENER_COMMANDS | ANSWERER_COMMANDS
    for stream_id, opener in ((1, Role.CLIENT), (2, Role.SERVER)):
        for cmd in set(Cmd) - CONNECTION_COMMANDS:
            assert legal(P.OPEN, cmd, stream_id, opener) is (cmd in OPENER_COMMANDS)
            assert legal(P.OPEN, cmd, stream_id, opener.peer) is (cmd in ANSWERER_COMMANDS)
    assert legal(P.OPEN, 999, 1, Role.SERVER)
    assert not legal(P.OPEN, Cmd.GET, 1, Role.SERVER)
    assert not legal(P.OPEN, Cmd.ATTRS, 1, Role.CLIENT)
