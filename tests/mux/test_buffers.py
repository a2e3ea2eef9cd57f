"""Where received payloads wait: what little of them is kept may hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fsmux.mux.buffers import MOST, SLAB, BufferPool


def test_a_byte_here_and_there_does_not_hold_a_buffer_each() -> None:
    """Somebody reads all of what comes but for one byte in each of many buffers."""
    pool = BufferPool()
    kept = []
    for number in range(4 * MOST):
        one = pool.place(1)
        one.views[0][:] = bytes([number % 256])
        kept.append(one)
        pool.release(pool.place(SLAB - 1))
    assert pool.allocated <= MOST
    assert [bytes(one) for one in kept] == [bytes([number % 256]) for number in range(4 * MOST)]
    for one in kept:
        pool.release(one)
    room = pool.place(3 * SLAB)
    assert len(bytes(room)) == 3 * SLAB
    pool.release(room)
    pool.close()
    assert pool.allocated == 0


@given(st.lists(st.tuples(st.integers(1, 3 * SLAB), st.booleans()), max_size=30))
def test_each_payload_has_its_own_room(sizes: list[tuple[int, bool]]) -> None:
    pool = BufferPool()
    held = []
    for number, (size, keep) in enumerate(sizes, 1):
        one = pool.place(size)
        assert sum(map(len, one.views)) == one.length == size
        for view in one.views:
            view[:1] = view[-1:] = bytes([number])
        if keep:
            held.append((number, one))
        else:
            pool.release(one)
    for number, one in held:
        assert all(view[0] == view[-1] == number for view in one.views)
        pool.release(one)
    pool.close()
    assert pool.allocated == 0
