"""How many attempts a receiver gets at once, so that a slow or dead receiver keeps no other one waiting.

A receiver that has just failed gets one attempt at a time until one succeeds, and all failing receivers together get
half of the process. A callback's host starts as failing: anyone who may submit can name a new host in each request.
Deliveries without a slot wait here only if their turn comes within seconds. The others are scheduled on the broker,
each a little later than the one before, and take no room in the process.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

SLOTS_PER_RECEIVER: Final = 8
"""Concurrent attempts per receiver and process: enough to hide network latency, few enough for a small receiver."""
MAX_WAITING: Final = 32
"""Deliveries per receiver that wait in the process: an eighth of what it holds, so one receiver never fills it."""
MAX_FAILING: Final = 128
"""Attempts and waiting deliveries of all failing receivers: half of what the process holds. The rest is for others."""

_MAX_LOCAL_WAIT: Final = 2.0
"""Seconds that a delivery may wait in the process; a longer wait is the broker's, where it takes no slot."""
_SOON_SECONDS: Final = 60.0
"""Turns further away than this are packed closely, so that a backlog of hours is delivered soon after a recovery."""
_TURN_SECONDS: Final = 0.02
"""The least time between turns of a failing receiver, and the most between distant turns: a receiver that is dead for
hours costs at most 50 messages a second."""
_INITIAL_DURATION: Final = 0.05
"""Seconds that the first attempt is assumed to take: a receiver in the same region."""
_SMOOTHING: Final = 0.2
"""Weight of the newest attempt in the average duration: about the last ten attempts count."""
_MAX_RECEIVERS: Final = 10_000
"""Receivers that are remembered: callback hosts are unlimited, memory is not."""


class Receiver(NamedTuple):
    """What the limits apply to."""

    name: str
    """The name of a configured endpoint, or host and port of a callback."""
    is_callback: bool = False


class _ReceiverState:
    __slots__ = ("duration", "is_failing", "next_turn", "running", "waiting")

    def __init__(self, *, is_failing: bool) -> None:
        self.running = 0
        """Attempts."""
        self.waiting: deque[asyncio.Future[bool]] = deque()
        self.is_failing = is_failing
        self.duration = _INITIAL_DURATION
        """Average seconds of an attempt."""
        self.next_turn = 0.0
        """The latest turn that is reserved, in monotonic seconds."""


class ReceiverLimits:
    """The slots of one process.

    Args:
        clock: monotonic seconds.
        jitter: a random number of [0, 1).
        slots: see `SLOTS_PER_RECEIVER`.
        waiting: see `MAX_WAITING`.
        failing: see `MAX_FAILING`.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        *,
        slots: int = SLOTS_PER_RECEIVER,
        waiting: int = MAX_WAITING,
        failing: int = MAX_FAILING,
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self._slots = slots
        self._waiting = waiting
        self._failing = failing
        self._failing_count = 0
        """Attempts and waiting deliveries of failing receivers."""
        self._receivers: dict[Receiver, _ReceiverState] = {}

    async def acquire(self, receiver: Receiver) -> bool:
        """Acquire a slot, perhaps after a short wait. If it returns True, `release` must follow."""
        state = self._state(receiver)
        if state.is_failing and self._failing_count >= self._failing:
            return False
        if not state.waiting and state.running < self._limit(state):
            with self._counted(state):
                state.running += 1
            return True
        ahead = len(state.waiting) + 1
        if ahead > self._waiting or not self._is_short_wait(state, ahead):
            return False
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        with self._counted(state):
            state.waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                with self._counted(state):
                    self._free_slot(state)
            raise

    def release(self, receiver: Receiver, *, duration: float, is_failed: bool | None) -> None:
        """Release a slot.

        Args:
            receiver: of the attempt.
            duration: of the attempt, in seconds.
            is_failed: None if the receiver was not called.
        """
        state = self._receivers[receiver]
        with self._counted(state):
            if is_failed is not None:
                if state.is_failing and not is_failed:
                    state.next_turn = 0.0  # new deliveries need not wait behind the turns of the failing time
                state.is_failing = is_failed
                state.duration += _SMOOTHING * (duration - state.duration)
            self._free_slot(state)
        if len(self._receivers) > _MAX_RECEIVERS:
            self._evict()

    def reserve_retry(self, receiver: Receiver) -> float:
        """Reserve the receiver's next retry turn; return the seconds until then."""
        state = self._state(receiver)
        now = self._clock()
        step = state.duration / self._limit(state)
        if state.next_turn - now > _SOON_SECONDS:
            step = min(step, _TURN_SECONDS)
        if state.is_failing:
            step = max(step, _TURN_SECONDS)
        state.next_turn = max(state.next_turn, now) + step
        return state.next_turn - now + step * self._jitter()

    def _state(self, receiver: Receiver) -> _ReceiverState:
        return self._receivers.setdefault(receiver, _ReceiverState(is_failing=receiver.is_callback))

    @contextmanager
    def _counted(self, state: _ReceiverState) -> Iterator[None]:
        """Keep `_failing_count` right while the state is changed in this context."""
        self._failing_count -= _failing_share(state)
        yield
        self._failing_count += _failing_share(state)

    def _evict(self) -> None:
        """Forget idle callback hosts, failing ones first: a new host starts as failing, so nothing is lost."""
        idle = [
            (receiver, state.is_failing)
            for receiver, state in self._receivers.items()
            if receiver.is_callback and not state.running and not state.waiting
        ]
        failing = [receiver for receiver, is_failing in idle if is_failing]
        for receiver in failing or [receiver for receiver, _ in idle]:
            del self._receivers[receiver]

    def _free_slot(self, state: _ReceiverState) -> None:
        state.running -= 1
        # After a slow failure all waiting deliveries are sent away: each attempt could take its full time.
        is_closed = state.is_failing and not self._is_short_wait(state, 1)
        while state.waiting and (is_closed or state.running < self._limit(state)):
            turn = state.waiting.popleft()
            if turn.done():
                continue  # it was cancelled
            turn.set_result(not is_closed)
            state.running += 0 if is_closed else 1

    def _is_short_wait(self, state: _ReceiverState, ahead: int) -> bool:
        return ahead * state.duration <= _MAX_LOCAL_WAIT * self._limit(state)

    def _limit(self, state: _ReceiverState) -> int:
        return 1 if state.is_failing else self._slots


def _failing_share(state: _ReceiverState) -> int:
    return state.running + len(state.waiting) if state.is_failing else 0
