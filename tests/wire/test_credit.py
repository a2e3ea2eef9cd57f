from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fsmux.errors import FlowControlError
from fsmux.wire.credit import MAX_LIMIT, RESERVE, CreditBudget, EagerBudget, LocalFlow, ReceiveCredit, SendCredit

# ---- one stream -------------------------------------------------------------------------------------------------


def test_sending() -> None:
    credit = SendCredit(10)
    credit.spend(4)
    credit.spend(0)
    assert (credit.limit, credit.used, credit.available) == (10, 4, 6)
    with pytest.raises(LocalFlow):
        credit.spend(7)
    with pytest.raises(LocalFlow):
        credit.spend(-1)
    assert credit.used == 4
    assert credit.extend(20)
    assert credit.available == 16


def test_grants_never_shrink() -> None:
    credit = SendCredit(10)
    assert not credit.extend(10)
    assert not credit.extend(3)
    assert not credit.extend(0)
    assert credit.limit == 10


@pytest.mark.parametrize("limit", [MAX_LIMIT + 1, 2**63, 2**64 - 1])
def test_absurd_grants(limit: int) -> None:
    credit = SendCredit(10)
    with pytest.raises(FlowControlError):
        credit.extend(limit)
    assert credit.extend(MAX_LIMIT)


def test_receiving_more_than_granted() -> None:
    credit = ReceiveCredit(10)
    credit.on_received(10)
    credit.on_received(0)
    with pytest.raises(FlowControlError, match="11 bytes on one stream where 10 were granted"):
        credit.on_received(1)
    assert credit.received == 10


def test_consuming_more_than_received_is_a_bug_here() -> None:
    credit = ReceiveCredit(10)
    credit.on_received(5)
    with pytest.raises(ValueError, match="6 bytes consumed where 5 are held"):
        credit.on_consumed(6, 0.0, None)


# ---- the window -------------------------------------------------------------------------------------------------


def tuned(rate: float, rtt: float | None, *, rounds: int = 200) -> int:
    """The window after consuming at ``rate`` bytes per second for a while."""
    budget = CreditBudget(1 << 20, 1 << 10, 1 << 16)
    credit = ReceiveCredit(1 << 10)
    budget.add(1, credit)
    credit.expect(None)
    now = 0.0
    for _ in range(rounds):
        budget.pump()
        n = min(credit.granted - credit.received, 256)
        credit.on_received(n)
        now += n / rate
        credit.on_consumed(n, now, rtt)
    return credit.window


def test_window_grows_to_the_bandwidth_delay_product_and_its_bound() -> None:
    assert tuned(1000.0, 0.01) == 1 << 10  # 10 bytes in flight would do
    assert tuned(1e9, 0.1) == 1 << 16  # would need 100 MB; the bound holds
    assert 1 << 12 <= tuned(100_000.0, 0.1) <= 1 << 16  # 10 kB in flight
    assert tuned(1e9, None) == 1 << 10
    assert tuned(1e9, 0.0) == 1 << 10


@pytest.mark.parametrize(("total", "window"), [(1500, 1000), (4000, 2000)])
def test_window_grows_only_if_the_budget_has_room(total: int, window: int) -> None:
    budget = CreditBudget(total, 1000, 2000)
    credit = ReceiveCredit(500, 1000)
    budget.add(1, credit)
    credit.expect(None)
    assert budget.pump() == [(1, 1000)]
    credit.on_received(1000)
    credit.on_consumed(600, 0.0, 1.0)
    assert credit.window == window


# ---- the budget -------------------------------------------------------------------------------------------------


def new(budget: CreditBudget, key: int, initial: int = 0, window: int = 100) -> ReceiveCredit:
    credit = ReceiveCredit(initial, window)
    budget.add(key, credit)
    return credit


@pytest.mark.parametrize("args", [(10, 0, 5), (10, 6, 5), (10, 11, 20)])
def test_senseless_budgets(args: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="do not go with"):
        CreditBudget(*args)


def test_adding() -> None:
    budget = CreditBudget(1000, 50, 200)
    small, large = ReceiveCredit(10, 10), ReceiveCredit(10, 999)
    budget.add(1, small)
    budget.add(3, large)
    assert (small.window, large.window) == (50, 200)
    with pytest.raises(ValueError, match="already"):
        budget.add(5, small)
    with pytest.raises(ValueError, match="already"):
        budget.add(1, ReceiveCredit(1))
    with pytest.raises(ValueError, match="initial credit"):
        budget.add(7, ReceiveCredit(1001))


def test_a_stream_that_expects_nothing_costs_nothing() -> None:
    budget = CreditBudget(1000, 100, 100)
    credit = new(budget, 1, initial=64)
    assert budget.pump() == []
    credit.expect(0)
    assert budget.pump() == []
    assert budget.outstanding == 0


def test_small_file_within_initial_credit_hears_of_no_credit() -> None:
    budget = CreditBudget(1000, 100, 100)
    credit = new(budget, 1, initial=64)
    credit.on_received(20)
    credit.expect(0)
    credit.on_consumed(20, 0.0, None)
    assert budget.pump() == []
    budget.remove(1)
    assert budget.outstanding == 0


def test_first_grant_charges_the_rest_of_the_initial_credit() -> None:
    budget = CreditBudget(1000, 100, 100)
    credit = new(budget, 1, initial=64)
    credit.expect(None)
    assert budget.pump() == [(1, 100)]
    assert budget.outstanding == credit.outstanding == 100
    assert budget.pump() == []


def test_an_eager_stream_is_granted_even_what_it_has() -> None:
    """Its sender may be waiting for the eager budget, so it must hear of credit, though the limit is no higher."""
    budget = CreditBudget(1000, 100, 100)
    credit = new(budget, 1, initial=64)
    credit.expect(30)
    assert budget.pump() == [(1, 64)]
    assert credit.announced
    assert budget.outstanding == 64
    assert budget.pump() == []


def test_grants_come_in_quarters_of_the_window() -> None:
    budget = CreditBudget(1000, 10, 100)
    credit = new(budget, 1)
    credit.expect(None)
    assert budget.pump() == [(1, 100)]
    credit.on_received(100)
    credit.on_consumed(24, 0.0, None)
    assert budget.pump() == []
    credit.on_consumed(1, 0.0, None)
    assert budget.pump() == [(1, 125)]


@pytest.mark.parametrize(("frame", "grant"), [(12, 25), (13, 26), (25, 50), (26, 25)])
def test_large_frames_are_granted_two_at_a_time_if_the_window_holds_four(frame: int, grant: int) -> None:
    budget = CreditBudget(1000, 10, 100)
    credit = new(budget, 1)
    credit.expect(None)
    assert budget.pump() == [(1, 100)]
    budget.frame_size = frame
    credit.on_received(100)
    credit.on_consumed(grant - 1, 0.0, None)
    assert budget.pump() == []
    credit.on_consumed(1, 0.0, None)
    assert budget.pump() == [(1, 100 + grant)]


def test_a_narrowed_budget_grants_less_ahead_and_takes_nothing_back() -> None:
    budget = CreditBudget(1000, 10, 100)
    budget.frame_size = 100
    credit = new(budget, 1)
    credit.expect(None)
    assert budget.pump() == [(1, 100)]
    budget.widest = 40
    credit.on_received(100)
    credit.on_consumed(69, 0.0, None)
    assert budget.pump() == []
    credit.on_consumed(1, 0.0, None)
    assert budget.pump() == [(1, 110)]
    budget.widest = 100
    credit.on_consumed(30, 0.0, None)
    assert budget.pump() == [(1, 200)]


def test_grants_end_where_the_file_ends() -> None:
    budget = CreditBudget(1000, 10, 100)
    credit = new(budget, 1)
    credit.expect(130)
    assert budget.pump() == [(1, 100)]
    credit.on_received(100)
    credit.on_consumed(60, 0.0, None)
    assert budget.pump() == [(1, 130)]
    credit.on_consumed(40, 0.0, None)
    credit.on_received(30)
    credit.on_consumed(30, 0.0, None)
    assert budget.pump() == []
    credit.expect(5)  # a chunk is to come again
    assert budget.pump() == [(1, 135)]


def test_streams_that_stopped_leave_a_reserve() -> None:
    budget = CreditBudget(1000, 50, 500)
    for key in range(1, 20, 2):  # ten that take all they are given and never consume
        new(budget, key, window=500).expect(None)
        budget.pump()
    stalled = budget.outstanding
    assert stalled <= 1000
    for other in range(100, 100 + (1000 - stalled) // 50):
        new(budget, other, window=500).expect(None)
        assert [key for key, _ in budget.pump()] == [other]


def test_waiting_streams_are_served_in_turn() -> None:
    budget = CreditBudget(100, 50, 50)
    credits = {key: new(budget, key, window=50) for key in range(1, 12, 2)}
    for credit in credits.values():
        credit.expect(None)
    served: list[int] = []
    holding: list[int] = []
    for _ in range(12):
        for key, limit in budget.pump():
            served.append(key)
            holding.append(key)
            credits[key].on_received(limit - credits[key].received)
        key = holding.pop(0)
        credits[key].on_consumed(credits[key].received - credits[key].consumed, 0.0, None)
    assert served[:12] == list(range(1, 12, 2)) * 2


def test_many_streams_are_granted_whole_frames_in_turn() -> None:
    """As large as the link takes them, and so that each begins where a frame should."""
    budget = CreditBudget(1600, 50, 400)
    budget.frame_size = 200
    credits = {key: new(budget, key, initial=20, window=400) for key in range(1, 40, 2)}
    for credit in credits.values():
        credit.expect(None)
    granted = dict(budget.pump())
    assert granted == {**dict.fromkeys(range(1, 13, 2), 200), **dict.fromkeys(range(13, 29, 2), 50)}
    assert (budget.outstanding, budget.lent) == (1600, 400)
    for key in (1, 3):
        credits[key].on_received(200)
        credits[key].on_consumed(200, 0.0, None)
        assert budget.pump() == [(12 + key, 200)], "who was lent something is next"


def test_what_is_lent_is_given_back_and_lent_again() -> None:
    budget = CreditBudget(400, 50, 300)
    budget.frame_size = 300
    first, second, third = (new(budget, key, window=300) for key in (1, 3, 5))
    for credit in (first, second, third):
        credit.expect(None)
    assert budget.pump() == [(1, 300), (3, 50), (5, 50)]
    second.on_received(50)
    second.on_consumed(50, 0.0, None)
    assert (budget.lent, second.lent) == (50, 0)
    assert budget.pump() == [(3, 100)]
    budget.remove(5)
    assert budget.lent == second.lent == 50
    assert budget.outstanding == 350


def test_frames_that_became_smaller_are_no_reason_to_grant_nothing() -> None:
    budget = CreditBudget(400, 50, 300)
    budget.frame_size = 300
    first, second = new(budget, 1, window=300), new(budget, 3, window=300)
    for credit in (first, second):
        credit.expect(None)
    assert budget.pump() == [(1, 300), (3, 50)]
    budget.frame_size = 50
    first.on_received(300)
    first.on_consumed(40, 0.0, None)
    assert budget.pump() == []
    first.on_consumed(10, 0.0, None)
    assert budget.pump() == [(3, 100)]


def test_stalled_streams_with_whole_frames_leave_the_reserve_to_others() -> None:
    budget = CreditBudget(1600, 50, 400)
    budget.frame_size = 400
    for key in range(1, 8, 2):
        new(budget, key, window=400).expect(None)
    assert [limit for _, limit in budget.pump()] == [400, 400, 400, 50]
    others = {key: new(budget, key, window=400) for key in (101, 103)}
    for credit in others.values():
        credit.expect(None)
    for _ in range(10):
        for key, limit in budget.pump():
            credit = others[key]
            credit.on_received(limit - credit.received)
            credit.on_consumed(credit.received - credit.consumed, 0.0, None)
    assert all(credit.consumed >= 400 for credit in others.values())


def test_removing_a_waiting_stream_lets_the_next_one_in() -> None:
    budget = CreditBudget(100, 50, 50)
    first, second = new(budget, 1, initial=100, window=50), new(budget, 3, window=50)
    third = new(budget, 5, window=50)
    for credit in (second, first, third):
        credit.expect(None)
    assert budget.pump() == [(3, 50)]
    assert budget.pump() == []  # 1 would take 100 and waits; 5 does not overtake it
    budget.remove(1)
    assert budget.pump() == [(5, 50)]


class Budget(RuleBasedStateMachine):
    """Streams come, receive, consume and go in any order; a model of the senders obeys the grants."""

    TOTAL, LEAST, MOST = 1000, 60, 400

    def __init__(self) -> None:
        super().__init__()
        self.budget = CreditBudget(self.TOTAL, self.LEAST, self.MOST)
        self.streams: dict[int, tuple[ReceiveCredit, SendCredit]] = {}
        self.now = 0.0
        self.next = 1

    @rule(initial=st.integers(0, 100), window=st.integers(1, 500))
    def open(self, initial: int, window: int) -> None:
        credit = ReceiveCredit(initial, window)
        self.budget.add(self.next, credit)
        self.streams[self.next] = (credit, SendCredit(initial))
        self.next += 2

    @rule(size=st.sampled_from([0, 60, 120, 240, 480]))
    def frames(self, size: int) -> None:
        self.budget.frame_size = size

    @precondition(lambda self: self.streams)
    @rule(data=st.data(), remaining=st.one_of(st.none(), st.integers(0, 1000)))
    def expect(self, data: st.DataObject, remaining: int | None) -> None:
        self.pick(data)[0].expect(remaining)

    @precondition(lambda self: self.streams)
    @rule(data=st.data(), part=st.floats(0, 1))
    def send(self, data: st.DataObject, part: float) -> None:
        credit, sender = self.pick(data)
        n = int(sender.available * part)
        sender.spend(n)
        credit.on_received(n)

    @precondition(lambda self: self.streams)
    @rule(data=st.data(), part=st.floats(0, 1), seconds=st.floats(0, 1))
    def consume(self, data: st.DataObject, part: float, seconds: float) -> None:
        credit, _ = self.pick(data)
        self.now += seconds
        credit.on_consumed(int((credit.received - credit.consumed) * part), self.now, 0.1)

    @precondition(lambda self: self.streams)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.streams)))
        del self.streams[key]
        self.budget.remove(key)

    @rule()
    def pump(self) -> None:
        grants = self.budget.pump()
        assert len({key for key, _ in grants}) == len(grants)
        for key, limit in grants:
            credit, sender = self.streams[key]
            assert limit == credit.granted >= sender.limit
            sender.extend(limit)

    @rule()
    def everyone_is_served(self) -> None:
        """When all that arrives is consumed, nobody who expects bytes stays without credit."""
        for _ in range(4 * len(self.streams) + 4):
            self.pump()
            for credit, sender in self.streams.values():
                n = sender.available
                sender.spend(n)
                credit.on_received(n)
                credit.on_consumed(credit.received - credit.consumed, self.now, None)
        starving = [key for key, (credit, _) in self.streams.items() if credit._expects and not credit.announced
                    and (credit._end is None or credit._end > credit.received)]  # fmt: skip
        assert not starving

    def pick(self, data: st.DataObject) -> tuple[ReceiveCredit, SendCredit]:
        return self.streams[data.draw(st.sampled_from(sorted(self.streams)))]

    @invariant()
    def conserved(self) -> None:
        announced = [credit for credit, _ in self.streams.values() if credit.announced]
        assert self.budget.outstanding == sum(credit.outstanding for credit in announced)
        assert 0 <= self.budget.outstanding <= self.TOTAL
        assert self.budget.lent == sum(credit.lent for credit in announced)
        assert 0 <= self.budget.lent <= self.TOTAL // RESERVE
        assert all(0 <= credit.lent <= credit.outstanding for credit, _ in self.streams.values())
        for credit, sender in self.streams.values():
            assert 0 <= credit.consumed <= credit.received <= credit.granted
            assert sender.used == credit.received
            assert sender.limit <= credit.granted
            assert self.LEAST <= credit.window <= self.MOST


TestBudget = Budget.TestCase
TestBudget.settings = settings(max_examples=60, stateful_step_count=40)


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 300)), min_size=1, max_size=30))
def test_every_file_gets_through_whatever_its_size_and_initial_credit(files: list[tuple[int, int]]) -> None:
    """Senders that use all credit at once, receivers that consume all at once: no deadlock, no byte too many."""
    budget = CreditBudget(400, 40, 160)
    streams = {2 * i + 1: (ReceiveCredit(initial, 80), SendCredit(initial), size)
               for i, (initial, size) in enumerate(files)}  # fmt: skip
    for key, (credit, _, size) in streams.items():
        budget.add(key, credit)
        credit.expect(size)
    for _ in range(1000):
        for key, limit in budget.pump():
            streams[key][1].extend(limit)
        for key, (credit, sender, size) in list(streams.items()):
            n = min(sender.available, size - sender.used) if credit.announced else 0  # none may be eager here
            sender.spend(n)
            credit.on_received(n)
            credit.on_consumed(n, 0.0, None)
            if sender.used == size:
                budget.remove(key)
                del streams[key]
        if not streams:
            break
    assert not streams
    assert budget.outstanding == 0


def test_eager_budget() -> None:
    eager = EagerBudget(100)
    assert eager.take(60)
    assert not eager.take(41)
    assert eager.take(40)
    assert eager.available == 0
    eager.release(60)
    assert eager.take(60)
    eager.release(100)
    with pytest.raises(ValueError, match="released"):
        eager.release(1)
