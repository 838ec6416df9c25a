"""The rate of requests of a caller: what passes in any window of time, alone and with what passes elsewhere."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_api.access.limits.request_exchange import MAX_MEMBERS, PassedRequests, encode_passed
from opstream_api.access.limits.request_limit import RequestLimit
from opstream_api.access.principal import Owner
from opstream_schemas.operation.rate_limit import Rate, parse_rate

pytestmark = pytest.mark.unit

ANN, BOB = Owner("acme", "ann"), Owner("acme", "bob")


class Clock:
    """Monotonic seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(
    rate=st.builds(Rate, st.integers(1, 20), st.sampled_from([1.0, 60.0])),
    steps=st.lists(st.floats(0, 30, allow_nan=False), max_size=200),
)
def test_no_window_has_more_than_the_rate(rate: Rate, steps: list[float]) -> None:
    """In w seconds at most `count` and w / `spacing` requests pass, whenever they are sent."""
    clock = Clock()
    limit = RequestLimit(rate, clock)
    passed = []
    for step in steps:
        clock.now += step
        if not limit.take(ANN):
            passed.append(clock.now)
    for first, last in itertools.combinations(range(len(passed)), 2):
        window = passed[last] - passed[first]
        assert last - first + 1 <= rate.count + window / rate.spacing + 1e-3


@given(
    count=st.integers(1, 50),
    sent=st.integers(0, 200),
    elsewhere=st.integers(0, 200),
    pause=st.floats(0, 3, allow_nan=False),
)
def test_the_wait_is_exact(count: int, sent: int, elsewhere: int, pause: float) -> None:
    """After the seconds that a refused request gets, the next one passes; a moment before, it does not."""
    clock = Clock()
    limit = RequestLimit(Rate(count, 1.0), clock)
    limit.add(ANN, elsewhere)
    for _ in range(sent):
        limit.take(ANN)
    clock.now += pause
    if wait := limit.take(ANN):
        clock.now += wait - 1e-3
        assert limit.take(ANN) > 0
        clock.now += 1e-3
        assert limit.take(ANN) == 0


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 0.2, allow_nan=False)), min_size=1, max_size=400))
def test_processes_that_exchange_keep_the_rate_together(steps: list[tuple[int, float]]) -> None:
    """Three of them, each a quarter of a second late: they exceed it by no more than passes elsewhere meanwhile."""
    clock, rate = Clock(), Rate(10, 1.0)
    limits = [RequestLimit(rate, clock) for _ in range(3)]
    began = exchanged = clock.now
    passed = late = at_once = 0
    for index, step in steps:
        clock.now += step
        if clock.now - exchanged >= 0.25:
            exchanged = clock.now
            for sender in limits:
                for caller, count in sender.drain().items():
                    for receiver in limits:
                        if receiver is not sender:
                            receiver.add(caller, count)
            late, at_once = max(late, at_once), 0
        if not limits[index].take(ANN):
            passed += 1
            at_once += 1
    late = max(late, at_once)
    assert passed <= rate.count + (clock.now - began) / rate.spacing + late


def test_what_passed_elsewhere_counts() -> None:
    """As if it had passed here; of one message no more is believed than twice what passes at once."""
    clock = Clock()
    limit = RequestLimit(parse_rate("10/s"), clock)
    limit.add(ANN, 7)
    assert [bool(limit.take(ANN)) for _ in range(4)] == [False, False, False, True]
    limit.add(ANN, 10**9)
    assert limit.take(ANN) < 2.2
    limit.add(BOB, -5)
    assert [bool(limit.take(BOB)) for _ in range(11)] == [False] * 10 + [True]


def test_callers_do_not_share() -> None:
    """Neither with another subject nor with the same subject of another tenant."""
    limit = RequestLimit(parse_rate("1/m"), Clock())
    for caller in (ANN, BOB, Owner("evil", "ann"), Owner("", "ann")):
        assert limit.take(caller) == 0
        assert limit.take(caller) > 0


def test_the_memory_is_bounded() -> None:
    """The caller that was silent for longest is forgotten; one that is refused all the while is not."""
    clock = Clock()
    limit = RequestLimit(parse_rate("1/d"), clock, max_callers=3)
    assert limit.take(ANN) == 0
    for number in range(50):
        limit.take(Owner("", str(number)))
        limit.add(Owner("elsewhere", str(number)), 1)
        assert limit.take(ANN) > 0
    assert len(limit) == 3


def test_what_passed_is_drained_once() -> None:
    """Refused requests and those of elsewhere are not in it."""
    limit = RequestLimit(parse_rate("2/m"), Clock())
    for _ in range(5):
        limit.take(ANN)
    limit.add(BOB, 1)
    assert limit.drain() == {ANN: 2}
    assert limit.drain() == {}


def test_messages_are_bounded() -> None:
    """Many callers are several messages, of which none is larger than half a mebibyte."""
    callers = {Owner("t" * 64, "🙂" * 250 + f"{number:06}"): 1 for number in range(2 * MAX_MEMBERS + 1)}
    messages = list(encode_passed("me", callers))
    decoded = [msgspec.json.decode(one, type=PassedRequests) for one in messages]
    assert [len(one.passed) for one in decoded] == [MAX_MEMBERS, MAX_MEMBERS, 1]
    assert {Owner(*member[:2]): member[2] for one in decoded for member in one.passed} == callers
    assert max(map(len, messages)) < 768 * 1024
