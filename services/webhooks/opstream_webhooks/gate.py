"""How many attempts one receiver gets at once, so that a slow or dead one keeps no other waiting. Caller: `courier.py`.

A receiver is a configured endpoint, or the host and port of callbacks. One that has just failed gets one attempt at a
time until one succeeds, and all that are failing have half of the process between them. A few more wait here for their
turn as long as all goes well; the others are put off on the broker, each a little later than the one before it, so that
they hold nothing here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

SLOTS: Final = 8
"""Attempts at once of one receiver and process."""
WAITING: Final = 32
"""Deliveries of one receiver that wait in the process for their turn."""
FAILING: Final = 128
"""Attempts at once of all receivers that have just failed: half of what the process has in hand."""

_LONGEST_LOCAL_WAIT: Final = 2.0
_SOON: Final = 60.0
_STEP: Final = 0.02
"""Seconds between turns of a receiver that fails, at least, and between turns that are not soon, at most. So one that
is dead for hours costs 50 looks a second, whatever waits for it, and gets all of that soon once it is back."""
_FIRST_GUESS: Final = 0.05
_SHARE: Final = 0.2
_REMEMBERED: Final = 10_000


class _Receiver:
    __slots__ = ("duration", "is_failing", "next_turn", "running", "waiting")

    def __init__(self) -> None:
        self.running = 0
        self.waiting: deque[asyncio.Future[bool]] = deque()
        self.is_failing = False
        self.duration = _FIRST_GUESS
        """Seconds that an attempt takes, on average."""
        self.next_turn = 0.0


class Gate:
    """The slots of one process.

    Args:
        clock: monotonic seconds.
        jitter: a random number of [0, 1).
        slots: see `SLOTS`.
        waiting: see `WAITING`.
        failing: see `FAILING`.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        *,
        slots: int = SLOTS,
        waiting: int = WAITING,
        failing: int = FAILING,
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self._slots = slots
        self._waiting = waiting
        self._failing = failing
        self._probed: set[str] = set()
        """Failing receivers that have an attempt just now."""
        self._receivers: dict[str, _Receiver] = {}

    async def enter(self, receiver: str) -> bool:
        """Take a slot, after a short wait if need be; whether there was one. Whoever got it calls `leave`."""
        state = self._receivers.setdefault(receiver, _Receiver())
        if state.is_failing and len(self._probed) >= self._failing:
            return False
        if not state.waiting and state.running < self._limit(state):
            state.running += 1
            if state.is_failing:
                self._probed.add(receiver)
            return True
        ahead = len(state.waiting) + 1
        if ahead > self._waiting or not self._is_short(state, ahead):
            return False
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        state.waiting.append(turn)
        try:
            is_free = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self._free(state)
            raise
        if is_free and state.is_failing:
            self._probed.add(receiver)
        return is_free

    def leave(self, receiver: str, *, duration: float, is_failed: bool) -> None:
        """Give a slot back, after so many seconds."""
        state = self._receivers[receiver]
        self._probed.discard(receiver)
        if state.is_failing and not is_failed:
            state.next_turn = 0.0  # those who come now need not wait behind the turns of its bad time
        state.is_failing = is_failed
        state.duration += _SHARE * (duration - state.duration)
        self._free(state)
        if len(self._receivers) > _REMEMBERED:
            self._receivers = {name: one for name, one in self._receivers.items() if one.running or one.waiting}

    def wait(self, receiver: str) -> float:
        """The seconds after which one that found no slot is to come again; each call takes a later turn."""
        state = self._receivers.setdefault(receiver, _Receiver())
        now = self._clock()
        step = state.duration / self._limit(state)
        if state.next_turn - now > _SOON:
            step = min(step, _STEP)
        if state.is_failing:
            step = max(step, _STEP)
        state.next_turn = max(state.next_turn, now) + step
        return state.next_turn - now + step * self._jitter()

    def _free(self, state: _Receiver) -> None:
        state.running -= 1
        # Behind a failure that took long nobody waits here: each may take as long as an attempt may.
        is_closed = state.is_failing and not self._is_short(state, 1)
        while state.waiting and (is_closed or state.running < self._limit(state)):
            turn = state.waiting.popleft()
            if turn.done():
                continue  # it was cancelled
            turn.set_result(not is_closed)
            state.running += 0 if is_closed else 1

    def _is_short(self, state: _Receiver, ahead: int) -> bool:
        return ahead * state.duration <= _LONGEST_LOCAL_WAIT * self._limit(state)

    def _limit(self, state: _Receiver) -> int:
        return 1 if state.is_failing else self._slots
