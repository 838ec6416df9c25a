"""How many attempts one receiver gets at once, so that a slow or dead one keeps no other waiting. Caller: `courier.py`.

A receiver is a configured endpoint, or the host and port of callbacks. One that has just failed gets one attempt at a
time until one succeeds, and all that are failing have half of the process between them. The host of a callback begins
as one of these: whoever may submit names it, and may name a new one each time. A few more wait here for their turn as
long as all goes well; the others are put off on the broker, each a little later than the one before it, so that they
hold nothing here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

SLOTS_PER_RECEIVER: Final = 8
"""Attempts at once of one receiver and process."""
MAX_WAITING: Final = 32
"""Deliveries of one receiver that wait in the process for their turn."""
MAX_FAILING: Final = 128
"""Deliveries of all receivers that fail, in attempts or waiting for a turn: half of what the process has in hand."""

_MAX_LOCAL_WAIT: Final = 2.0
_SOON_SECONDS: Final = 60.0
_TURN_SECONDS: Final = 0.02
"""Seconds between turns of a receiver that fails, at least, and between turns that are not soon, at most. So one that
is dead for hours costs 50 looks a second, whatever waits for it, and gets all of that soon once it is back."""
_INITIAL_DURATION: Final = 0.05
_SMOOTHING: Final = 0.2
_MAX_RECEIVERS: Final = 10_000


class Receiver(NamedTuple):
    """Whom turns are counted for."""

    name: str
    """Of a configured endpoint, or host and port of a callback."""
    is_callback: bool = False


class _ReceiverState:
    __slots__ = ("duration", "is_failing", "next_turn", "running", "waiting")

    def __init__(self, *, is_failing: bool) -> None:
        self.running = 0
        self.waiting: deque[asyncio.Future[bool]] = deque()
        self.is_failing = is_failing
        self.duration = _INITIAL_DURATION
        """Seconds that an attempt takes, on average."""
        self.next_turn = 0.0


class ReceiverLimits:
    """The slots of one process.

    Args:
        clock: monotonic seconds.
        jitter: a random number of [0, 1).
        slots: see `SLOTS`.
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
        """Deliveries of receivers that fail, being tried or waiting for their turn."""
        self._receivers: dict[Receiver, _ReceiverState] = {}

    async def acquire(self, receiver: Receiver) -> bool:
        """Take a slot, after a short wait if need be; whether there was one. Whoever got it calls `leave`."""
        state = self._state(receiver)
        if state.is_failing and self._failing_count >= self._failing:
            return False
        if not state.waiting and state.running < self._limit(state):
            with self._counted(state):
                state.running += 1
            return True
        ahead = len(state.waiting) + 1
        if ahead > self._waiting or not self._is_short(state, ahead):
            return False
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        with self._counted(state):
            state.waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                with self._counted(state):
                    self._free(state)
            raise

    def release(self, receiver: Receiver, *, duration: float, is_failed: bool | None) -> None:
        """Give a slot back, after so many seconds; `is_failed` is None if that says nothing of the receiver."""
        state = self._receivers[receiver]
        with self._counted(state):
            if is_failed is not None:
                if state.is_failing and not is_failed:
                    state.next_turn = 0.0  # those who come now need not wait behind the turns of its bad time
                state.is_failing = is_failed
                state.duration += _SMOOTHING * (duration - state.duration)
            self._free(state)
        if len(self._receivers) > _MAX_RECEIVERS:
            self._forget()

    def reserve_retry(self, receiver: Receiver) -> float:
        """The seconds after which one that found no slot is to come again; each call takes a later turn."""
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
        """What is changed meanwhile is counted in `_held`."""
        self._failing_count -= _weight(state)
        yield
        self._failing_count += _weight(state)

    def _forget(self) -> None:
        """Endpoints are few. Of callbacks those that fail go first: as new ones they would be the same."""
        idle = [
            (receiver, state.is_failing)
            for receiver, state in self._receivers.items()
            if receiver.is_callback and not state.running and not state.waiting
        ]
        failing = [receiver for receiver, is_failing in idle if is_failing]
        for receiver in failing or [receiver for receiver, _ in idle]:
            del self._receivers[receiver]

    def _free(self, state: _ReceiverState) -> None:
        state.running -= 1
        # Behind a failure that took long nobody waits here: each may take as long as an attempt may.
        is_closed = state.is_failing and not self._is_short(state, 1)
        while state.waiting and (is_closed or state.running < self._limit(state)):
            turn = state.waiting.popleft()
            if turn.done():
                continue  # it was cancelled
            turn.set_result(not is_closed)
            state.running += 0 if is_closed else 1

    def _is_short(self, state: _ReceiverState, ahead: int) -> bool:
        return ahead * state.duration <= _MAX_LOCAL_WAIT * self._limit(state)

    def _limit(self, state: _ReceiverState) -> int:
        return 1 if state.is_failing else self._slots


def _weight(state: _ReceiverState) -> int:
    return state.running + len(state.waiting) if state.is_failing else 0
