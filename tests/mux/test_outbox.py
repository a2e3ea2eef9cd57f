"""The choice of the next frame: strict priorities, order within a stream, fair shares, credit."""

from __future__ import annotations

import threading
from collections import Counter

from fsmux.limits import MAX_CONTROL_PAYLOAD, MAX_DATA_PAYLOAD, MAX_QUEUED_CONTROL, MAX_QUEUED_PAYLOAD, MIB, MIN_FRAME
from fsmux.mux.outbox import Outbox
from fsmux.mux.queued import SendQueue
from fsmux.records import Attrs, Kind
from fsmux.wire.credit import SendCredit
from fsmux.wire.decoder import Decoder
from fsmux.wire.frames import Cmd, FileSpan, Flags, Frame
from fsmux.wire.messages import Credit, Entries, Entry, Span, decode, encode

PLENTY = 1 << 40


class Held:
    """Stands for a lease, and counts."""

    users = 0

    def share(self) -> int:
        assert self.users
        return self.__enter__()

    def __enter__(self) -> int:
        self.users += 1
        return 77

    def __exit__(self, *_: object) -> None:
        self.users -= 1


NO_FILE = Held()


def overflow() -> None:
    raise AssertionError("there is room")


def outbox(eager: int = PLENTY) -> Outbox:
    return Outbox(eager, lambda: None, overflow)


def queue(stream_id: int, credit: int = PLENTY) -> SendQueue:
    return SendQueue(stream_id, SendCredit(credit), lambda: None)


def drain(box: Outbox, most: int = 1 << 30, *, bulk: bool = True) -> list[Frame]:
    """What the writer would put on the wire, as the peer would decode it."""
    decoder = Decoder(lambda header: MAX_DATA_PAYLOAD)
    frames: list[Frame] = []
    while len(frames) < most and (batch := box.next(bulk=bulk)) is not None:
        frames += decoder.feed(batch.prefix)
        if isinstance(batch.payload, FileSpan):
            frames += decoder.feed(bytes(batch.payload.length))
        elif batch.payload is not None:
            frames += decoder.feed(batch.payload)
        batch.release()
    return frames


def size(frame: Frame) -> int:
    return sum(map(len, frame.payload)) if isinstance(frame.payload, tuple) else len(frame.payload)  # type: ignore[arg-type]


def test_urgent_before_messages_before_bulk() -> None:
    box, one, two = outbox(), queue(1), queue(3)
    box.data(one, Cmd.DATA, memoryview(bytes(100)))
    box.message(two, Frame(Cmd.OK, 3))
    box.urgent(Frame(Cmd.PING, 0, b""))
    box.grant(1, 5)
    assert [frame.cmd for frame in drain(box)] == [Cmd.PING, Cmd.OK, Cmd.CREDIT, Cmd.DATA]


def test_what_is_urgent_passes_between_two_frames_of_one_payload() -> None:
    box, one = outbox(), queue(1)
    box.frame_size = MIN_FRAME
    box.data(one, Cmd.DATA, memoryview(bytes(3 * MIN_FRAME)))
    first = drain(box, 1)
    box.urgent(Frame(Cmd.PONG, 0, b""))
    box.message(queue(3), Frame(Cmd.OK, 3))
    assert [frame.cmd for frame in first + drain(box)] == [Cmd.DATA, Cmd.PONG, Cmd.OK, Cmd.DATA, Cmd.DATA]


def test_a_message_stays_behind_the_data_of_its_stream() -> None:
    box, one, two = outbox(), queue(1), queue(3)
    box.frame_size = MIN_FRAME
    box.data(one, Cmd.DATA, memoryview(bytes(2 * MIN_FRAME)))
    box.message(one, Frame(Cmd.FINISH, 1, encode(Span(0, 1)), Flags.END_STREAM))
    box.message(two, Frame(Cmd.OK, 3))
    frames = drain(box)
    assert [frame.cmd for frame in frames if frame.stream_id == 1] == [Cmd.DATA, Cmd.DATA, Cmd.FINISH]
    assert frames[0].cmd == Cmd.OK
    assert frames[-1].flags == Flags.END_STREAM


def test_data_never_overtakes_a_message_of_its_stream_however_many_wait() -> None:
    """A batch of messages is bounded; what is over must still go before the data behind it."""
    box, last = outbox(), queue(9999)
    span = encode(Span(2**40, 2**40))
    for index in range(8000):
        box.message(queue(2 * index + 1), Frame(Cmd.SPAN, 2 * index + 1, span))
    box.message(last, Frame(Cmd.SPAN, 9999, span))
    box.data(last, Cmd.DATA, memoryview(b"x"))
    frames = drain(box)
    assert sum(map(size, frames)) > MAX_CONTROL_PAYLOAD
    assert [frame.cmd for frame in frames] == [Cmd.SPAN] * 8001 + [Cmd.DATA]


def test_a_thread_may_wait_for_something_to_send() -> None:
    box, one = outbox(), queue(1, credit=0)
    assert not box.wait(0.001)
    box.data(one, Cmd.DATA, memoryview(bytes(10)))
    assert drain(box) == []
    for push in (
        lambda: box.extend(one, 10),
        lambda: box.urgent(Frame(Cmd.PING, 0, b"")),
        lambda: box.message(one, Frame(Cmd.OK, 1)),
        lambda: box.grant(3, 5),
    ):
        found: list[bool] = []
        waiting = threading.Thread(target=lambda: found.append(box.wait(30)))  # noqa: B023
        waiting.start()
        push()
        waiting.join(10)
        assert found == [True]
        assert box.wait(0)
        assert drain(box)
        assert not box.wait(0)


def test_only_the_newest_grant_of_a_stream_is_sent() -> None:
    box = outbox()
    for limit in (10, 20, 30):
        box.grant(7, limit)
    frames = drain(box)
    assert [decode(frame.cmd, frame.payload) for frame in frames] == [Credit(((7, 30),))]  # type: ignore[arg-type]


def test_credit_never_overtakes_what_opens_its_stream() -> None:
    """The peer ignores credit for streams that it does not know, and would never hear of it again."""
    box, one = outbox(), queue(9999)
    for index in range(8000):
        box.message(queue(2 * index + 1), Frame(Cmd.OK, 2 * index + 1))
    box.grant(7, 1)
    box.message(one, Frame(Cmd.LIST, 9999))
    box.grant(9999, 1)
    box.grant(7, 2)
    frames = drain(box)
    assert sum(map(size, frames)) + 18 * len(frames) > 2 * MAX_CONTROL_PAYLOAD
    assert [frame.cmd for frame in frames[-2:]] == [Cmd.LIST, Cmd.CREDIT]
    grants = [grant for frame in frames if frame.cmd == Cmd.CREDIT for grant in decode(frame.cmd, frame.payload).grants]  # type: ignore[arg-type,union-attr]
    assert sorted(grants) == [(7, 2), (9999, 1)]


def test_many_grants_fit_their_frames() -> None:
    box = outbox()
    for index in range(10_000):
        box.grant(2 * index + 1, 2**62)
    frames = drain(box)
    assert all(size(frame) <= MAX_CONTROL_PAYLOAD for frame in frames)
    grants = [grant for frame in frames for grant in decode(frame.cmd, frame.payload).grants]  # type: ignore[arg-type,union-attr]
    assert len(grants) == 10_000


def test_a_hundred_equal_streams_get_equal_shares() -> None:
    """Jain's index: 1 when all get the same, 1/n when one gets all."""
    box = outbox()
    box.frame_size = MIN_FRAME
    for index in range(100):
        box.data(queue(2 * index + 1), Cmd.DATA, FileSpan(NO_FILE, 0, 64 * MIB))
    shares: Counter[int] = Counter()
    for frame in drain(box, 1037):
        shares[frame.stream_id] += size(frame)
    values = list(shares.values())
    assert len(values) == 100
    assert sum(values) ** 2 / (len(values) * sum(value**2 for value in values)) > 0.99


def test_a_new_stream_does_not_wait_for_a_round_of_all_others() -> None:
    """Its first turn is at once, and the only one that it is given early, whatever it waits for in between."""
    box = outbox()
    box.frame_size = MIN_FRAME
    for index in range(50):
        box.data(queue(2 * index + 1), Cmd.DATA, FileSpan(NO_FILE, 0, 64 * MIB))
    drain(box, 70)
    small, large, poor = queue(1001), queue(1003), queue(1005, credit=MIN_FRAME // 2)
    box.data(small, Cmd.DATA, memoryview(b"small"))
    box.data(large, Cmd.DATA, FileSpan(NO_FILE, 0, 64 * MIB))
    box.data(poor, Cmd.DATA, FileSpan(NO_FILE, 0, 64 * MIB))
    assert [frame.stream_id for frame in drain(box, 3)] == [1001, 1003, 1005]
    seen = [frame.stream_id for frame in drain(box, 20)]
    assert not {1001, 1003, 1005} & set(seen)
    box.extend(poor, PLENTY)
    box.data(small, Cmd.DATA, memoryview(b"more"))
    seen = [frame.stream_id for frame in drain(box, 20)]
    assert seen[0] == 1005, "half of its first turn is left"
    assert not {1001, 1003, 1005} & set(seen[1:])


def test_a_new_stream_may_be_dropped() -> None:
    box = outbox()
    new = queue(1)
    box.data(new, Cmd.DATA, FileSpan(NO_FILE, 0, 64 * MIB))
    box.drop(new)
    assert (box.idle, box.has_bulk, drain(box)) == (True, False, [])


def test_shares_are_by_bytes_not_by_payloads() -> None:
    """Ten streams with small payloads and ten with large ones."""
    box = outbox()
    box.frame_size = MIN_FRAME
    small = [queue(2 * index + 1) for index in range(10)]
    for one in small:
        for _ in range(4096):
            box.data(one, Cmd.DATA, memoryview(bytes(1024)))
    for index in range(10, 20):
        box.data(queue(2 * index + 1), Cmd.DATA, FileSpan(NO_FILE, 0, 64 * MIB))
    shares: Counter[int] = Counter()
    while sum(shares.values()) < 20 * MIB:
        for frame in drain(box, 1):
            shares[frame.stream_id] += size(frame)
    assert len(shares) == 20
    assert max(shares.values()) - min(shares.values()) <= 2 * MIN_FRAME


def test_words_between_payloads_leave_the_frames_whole() -> None:
    """Or each chunk would begin a few bytes later in its frame than the one before, and be written in pieces."""
    box, one = outbox(), queue(1)
    box.frame_size = MIN_FRAME
    for number in range(8):
        box.data(one, Cmd.DATA, FileSpan(NO_FILE, 4 * number * MIN_FRAME, 4 * MIN_FRAME))
        box.message(one, Frame(Cmd.CHUNK, 1, b"seven b"))
    frames = drain(box)
    assert [size(frame) for frame in frames if frame.cmd == Cmd.DATA] == [MIN_FRAME] * 32
    assert sum(frame.cmd == Cmd.CHUNK for frame in frames) == 8


def test_a_frame_that_credit_cut_short_is_made_up_for_by_the_next() -> None:
    box, one = outbox(), queue(1, credit=MIN_FRAME + 10)
    box.frame_size = MIN_FRAME
    box.data(one, Cmd.DATA, FileSpan(NO_FILE, 0, 4 * MIN_FRAME))
    assert [size(frame) for frame in drain(box)] == [MIN_FRAME, 10]
    box.extend(one, PLENTY)
    assert [size(frame) for frame in drain(box)] == [MIN_FRAME - 10, MIN_FRAME, MIN_FRAME]


def test_words_of_a_stream_go_with_what_follows_them_on_it_in_one_batch() -> None:
    box, one, two = outbox(), queue(1, credit=20), queue(3)
    made: list[bytes] = []

    def make() -> bytes:
        made.append(b"crc")
        return b"crc"

    box.data(one, Cmd.DATA, memoryview(bytes(10)))
    box.message_later(one, Cmd.CHUNK, make)
    box.message(one, Frame(Cmd.SPAN, 1, b"span"))
    box.data(one, Cmd.DATA, memoryview(bytes(10)))
    box.message(one, Frame(Cmd.FINISH, 1, b""))
    box.message(two, Frame(Cmd.OK, 3))
    batch = box.next()
    assert batch is not None
    assert batch.payload is not None
    assert not made  # it is about what has been sent
    decoder = Decoder(lambda header: MAX_DATA_PAYLOAD)
    batches = [batch]
    while (batch := box.next()) is not None:
        batches.append(batch)
    kinds = []
    for batch in batches:
        kinds.append([frame.cmd for frame in (*decoder.feed(batch.prefix), *decoder.feed(batch.payload or b""))])
        assert batch.queue is one
    assert kinds == [[Cmd.OK, Cmd.DATA], [Cmd.CHUNK, Cmd.SPAN, Cmd.DATA], [Cmd.FINISH]]


def test_words_of_one_stream_do_not_go_with_the_data_of_another() -> None:
    box, one, two = outbox(), queue(1), queue(3)
    box.data(one, Cmd.DATA, memoryview(bytes(10)))
    box.message(one, Frame(Cmd.FINISH, 1, b""))
    box.data(two, Cmd.DATA, memoryview(bytes(10)))
    found = []
    while (batch := box.next()) is not None:
        found.append((batch.queue, batch.payload is None))
    assert found == [(one, False), (one, True), (two, False)]


def test_a_stream_without_credit_costs_the_others_nothing() -> None:
    box, poor, rich = outbox(), queue(1, credit=0), queue(3)
    box.data(poor, Cmd.DATA, memoryview(bytes(10)))
    box.data(rich, Cmd.DATA, memoryview(bytes(10)))
    assert [frame.stream_id for frame in drain(box)] == [3]
    assert box.idle
    box.extend(poor, 4)
    assert [(frame.stream_id, size(frame)) for frame in drain(box)] == [(1, 4)]
    box.extend(poor, 100)
    assert [(frame.stream_id, size(frame)) for frame in drain(box)] == [(1, 6)]
    assert not poor.items


def test_a_page_of_a_listing_is_never_cut() -> None:
    box = outbox()
    page = encode(Entries(tuple(Entry((b"%05d" % index,), Attrs(Kind.FILE)) for index in range(500))))
    one = queue(1, credit=len(page) - 1)
    box.data(one, Cmd.ENTRIES, memoryview(page))
    assert drain(box) == []
    box.extend(one, len(page))
    (frame,) = drain(box)
    assert decode(frame.cmd, frame.payload) == decode(Cmd.ENTRIES, page)  # type: ignore[arg-type]


def test_early_data_is_bounded_over_all_streams_and_goes_on_in_turn() -> None:
    box = outbox(eager=100)
    queues = [queue(2 * index + 1) for index in range(5)]
    for one in queues:
        box.data(one, Cmd.DATA, memoryview(bytes(40)))
    assert [frame.stream_id for frame in drain(box)] == [1, 3]
    box.extend(queues[0], 1)  # any grant ends a stream's early phase
    assert [frame.stream_id for frame in drain(box)] == [5]
    box.drop(queues[1])
    box.finish(queues[2])
    assert [frame.stream_id for frame in drain(box)] == [7, 9]


def test_a_dropped_queue_sends_nothing_more_and_holds_nothing() -> None:
    box, one = outbox(eager=1000), queue(1)
    box.data(one, Cmd.DATA, memoryview(bytes(500)))
    drain(box)
    box.data(one, Cmd.DATA, memoryview(bytes(400)))
    box.drop(one)
    box.drop(one)
    box.data(one, Cmd.DATA, memoryview(bytes(400)))
    assert drain(box) == []
    assert box.idle
    assert box._eager.used == 0


def test_a_rate_that_is_set_while_data_flows_holds_from_the_next_frame_on() -> None:
    box, one = outbox(), queue(1)
    box.extend(one, PLENTY)
    box.data(one, Cmd.DATA, memoryview(bytes(10 * MIB)))
    assert box.next() is not None
    box.hold_back()
    assert box.held
    assert box.next() is None
    box.allowance = 1000
    (frame,) = drain(box)
    assert frame.length == 1000
    box.hold_back()  # changes nothing where there is an allowance
    assert box.allowance == 0


def test_what_waits_in_memory_is_counted_until_it_is_sent_or_dropped() -> None:
    box, one, other, lease = outbox(), queue(1), queue(3), Held()
    box.data(one, Cmd.DATA, memoryview(bytes(MAX_QUEUED_PAYLOAD)))
    box.data(one, Cmd.DATA, FileSpan(lease, 0, MAX_QUEUED_PAYLOAD))
    assert not box.crowded
    box.data(other, Cmd.DATA, memoryview(bytes(10)))
    assert box.crowded
    box.drop(other)
    assert not box.crowded
    box.data(other, Cmd.DATA, memoryview(bytes(10)))
    box.extend(one, PLENTY)
    box.extend(other, PLENTY)
    drain(box)
    assert box._held_bytes == 0
    assert lease.users == 0


def test_the_last_words_of_a_dropped_queue_go_before_what_takes_its_share() -> None:
    woken: list[Outbox] = []
    box = Outbox(100, lambda: woken.append(box), overflow)
    one, other = queue(1), queue(3)
    box.data(one, Cmd.DATA, memoryview(bytes(100)))
    box.data(other, Cmd.DATA, memoryview(bytes(100)))
    assert [frame.stream_id for frame in drain(box)] == [1]
    del woken[:]
    box.drop(one, Frame(Cmd.RESET, 1, b"why"))
    assert woken
    assert [(frame.cmd, frame.stream_id) for frame in drain(box)] == [(Cmd.RESET, 1), (Cmd.DATA, 3)]


def test_control_frames_for_a_peer_that_does_not_read_are_bounded() -> None:
    told: list[str] = []
    box = Outbox(PLENTY, lambda: None, lambda: told.append("overflow"))
    frame = Frame(Cmd.PONG, 0, bytes(1000))
    count = MAX_QUEUED_CONTROL // 1018
    for _ in range(count):
        box.urgent(frame)
    assert not told
    assert not box.takes_requests
    for _ in range(3):
        box.urgent(frame)
    assert told == ["overflow"]
    assert len(drain(box, bulk=False)) == count
    box.urgent(frame)
    assert not drain(box, bulk=False), "what came between is missing"


def test_a_file_is_held_from_queueing_until_its_last_byte_has_left() -> None:
    box, one, lease = outbox(), queue(1), Held()
    box.frame_size = MIN_FRAME
    box.data(one, Cmd.DATA, FileSpan(lease, 0, 2 * MIN_FRAME))
    assert lease.users == 1
    batches = [box.next(), box.next()]
    assert box.next() is None
    assert [batch.fd for batch in batches if batch] == [77, 77]
    assert lease.users == 2  # of the batches that are being sent
    for batch in batches:
        assert batch is not None
        batch.release()
    assert lease.users == 0


def test_a_dropped_payload_holds_no_file() -> None:
    box, one, lease = outbox(), queue(1, credit=0), Held()
    box.data(one, Cmd.DATA, FileSpan(lease, 0, 10))
    box.drop(one)
    box.data(one, Cmd.DATA, FileSpan(lease, 0, 10))
    assert lease.users == 0
    assert not one.items


def test_an_end_is_not_waited_beyond() -> None:
    box = outbox()
    waiting = threading.Thread(target=box.wait, args=(60,))
    waiting.start()
    box.end()
    waiting.join(30)
    assert not waiting.is_alive()
    assert not box.wait(60), "nor does anybody begin to wait"
