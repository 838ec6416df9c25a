"""How many attempts a receiver gets at once, and when its deliveries get their turn."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from opstream_webhooks.receiver_limits import Receiver, ReceiverLimits

pytestmark = pytest.mark.unit

A, B = Receiver("a"), Receiver("b")


async def test_slots_and_turns() -> None:
    """A receiver gets its slots; some more deliveries wait, and each further one gets a later turn."""
    limits = ReceiverLimits(lambda: 100.0, random.random, slots=2, waiting=1)
    assert [await limits.acquire(A), await limits.acquire(A)] == [True, True]
    waiting = asyncio.create_task(limits.acquire(A))
    await asyncio.sleep(0)
    assert not await limits.acquire(A)
    waits = [limits.reserve_retry(A) for _ in range(10)]
    assert all(0 < wait <= 61 for wait in waits)
    assert waits[-1] > waits[0]
    assert await limits.acquire(B)
    limits.release(A, duration=0.1, is_failed=False)
    assert await waiting


async def test_a_failing_receiver_gets_one_attempt_at_a_time() -> None:
    """After a slow failure no delivery waits in the process, and there is one attempt at a time until one succeeds."""
    limits = ReceiverLimits(lambda: 100.0, random.random, slots=2)
    assert [await limits.acquire(A), await limits.acquire(A)] == [True, True]
    waiting = asyncio.create_task(limits.acquire(A))
    await asyncio.sleep(0)
    limits.release(A, duration=15, is_failed=True)
    assert not await waiting
    limits.release(A, duration=15, is_failed=True)
    assert [await limits.acquire(A), await limits.acquire(A)] == [True, False]
    limits.release(A, duration=0.1, is_failed=False)
    assert [await limits.acquire(A), await limits.acquire(A)] == [True, True]


async def test_a_dead_receiver_costs_little() -> None:
    """However many deliveries wait for a dead receiver, at most 51 of them come in a second; after a recovery, new ones
    do not wait behind them."""
    limits = ReceiverLimits(lambda: 100.0, lambda: 0.0, slots=2)
    assert await limits.acquire(A)
    limits.release(A, duration=15, is_failed=True)
    waits = [limits.reserve_retry(A) for _ in range(10_000)]
    assert max(Counter(map(int, waits)).values()) <= 51
    assert waits == sorted(waits)
    assert waits[-1] < 300
    assert await limits.acquire(A)
    limits.release(A, duration=0.1, is_failed=False)
    assert limits.reserve_retry(A) < 10


async def test_a_wait_behind_a_quick_failure_is_counted() -> None:
    """While failures are quick, deliveries still wait in the process; each counts among those of failing receivers."""
    limits = ReceiverLimits(lambda: 100.0, random.random, slots=1, failing=1)
    assert [await limits.acquire(A), await limits.acquire(B)] == [True, True]
    waiting = asyncio.create_task(limits.acquire(A))
    await asyncio.sleep(0)
    for receiver in (A, B):
        limits.release(receiver, duration=0.001, is_failed=True)
    assert await waiting
    assert not await limits.acquire(B)
    limits.release(A, duration=0.001, is_failed=True)
    assert await limits.acquire(B)


async def test_failing_receivers_leave_room() -> None:
    """All failing receivers share a part of the process, so that others always find a slot."""
    limits = ReceiverLimits(lambda: 100.0, random.random, failing=2)
    a, b, c, d = map(Receiver, "abcd")
    for receiver in (a, b, c):
        assert await limits.acquire(receiver)
        limits.release(receiver, duration=15, is_failed=True)
    assert [await limits.acquire(receiver) for receiver in (a, b, c, d)] == [True, True, False, True]
    limits.release(a, duration=15, is_failed=True)
    assert await limits.acquire(c)


async def test_new_callback_hosts_leave_room() -> None:
    """A request may name a new callback host each time. Until a host has accepted a delivery, its attempts and waiting
    deliveries count as those of a failing receiver, so configured endpoints find a slot."""
    limits = ReceiverLimits(lambda: 100.0, random.random, failing=4)
    hosts = [Receiver(f"{number}.example", is_callback=True) for number in range(5)]
    assert [await limits.acquire(host) for host in hosts[:3]] == [True, True, True]
    waiting = asyncio.create_task(limits.acquire(hosts[0]))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert [await limits.acquire(host) for host in hosts] == [False] * 5
    assert await limits.acquire(A)
    limits.release(hosts[0], duration=0.1, is_failed=False)
    assert await waiting
    assert [await limits.acquire(hosts[number]) for number in (0, 0, 3, 4)] == [True, True, True, True]
    assert not await limits.acquire(hosts[1])


async def test_no_call_changes_no_state() -> None:
    """An attempt with nothing to send frees its slot, and does not change whether the receiver counts as failing."""
    limits = ReceiverLimits(lambda: 100.0, random.random, slots=2)
    host = Receiver("a.example", is_callback=True)
    for receiver, expected in ((A, [True, True]), (host, [True, False])):
        assert await limits.acquire(receiver)
        limits.release(receiver, duration=15, is_failed=None)
        asked = [asyncio.create_task(limits.acquire(receiver)) for _ in range(2)]
        await asyncio.sleep(0)
        assert [one.done() for one in asked] == expected
        for _ in asked:
            limits.release(receiver, duration=0.1, is_failed=False)
            await asyncio.sleep(0)


async def test_a_host_is_not_an_endpoint() -> None:
    """A callback host with the name of a configured endpoint is another receiver, and takes none of its slots."""
    limits = ReceiverLimits(lambda: 100.0, random.random, slots=2)
    host = Receiver(A.name, is_callback=True)
    assert await limits.acquire(host)
    limits.release(host, duration=15, is_failed=True)
    assert [await limits.acquire(A), await limits.acquire(A)] == [True, True]


async def test_receivers_are_evicted() -> None:
    """At most 10,000 receivers are remembered: endpoints always, working callback hosts longer than failing ones."""
    limits = ReceiverLimits(lambda: 100.0, random.random, slots=2)
    good = Receiver("good.example", is_callback=True)
    for receiver, is_failed in ((A, True), (good, False)):
        assert await limits.acquire(receiver)
        limits.release(receiver, duration=15, is_failed=is_failed)
    for number in range(20_005):
        host = Receiver(f"{number}.example", is_callback=True)
        assert await limits.acquire(host)
        limits.release(host, duration=15, is_failed=True)
    assert len(limits._receivers) <= 10_000
    assert [await limits.acquire(A), await limits.acquire(A)] == [True, False]
    assert [await limits.acquire(good), await limits.acquire(good)] == [True, True]


async def test_a_cancelled_wait_takes_no_turn() -> None:
    """The turn of a cancelled waiter goes to the next one."""
    limits = ReceiverLimits(lambda: 100.0, random.random, slots=1)
    assert await limits.acquire(A)
    first, second = asyncio.create_task(limits.acquire(A)), asyncio.create_task(limits.acquire(A))
    await asyncio.sleep(0)
    limits.release(A, duration=0.1, is_failed=False)  # the first one has its turn, but has not resumed yet
    first.cancel()
    assert await second
