"""How many requests each caller may send: a rate for each, as the rate of an action (GCRA). Pure.

What other processes have let pass is added to the same state, also beyond the rate: what was too much is then waited
for, so that in the long run a caller gets its rate from all processes together.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

from opstream_api.access.principal import Owner
from opstream_schemas.operation.rate_limit import Rate, reserve_slot

MAX_CALLERS: Final = 10_000
"""Callers of which a process knows when they sent requests. The one that was silent for longest is forgotten first."""
_BURSTS: Final = 2
"""As many times the rate's count is believed of one process at once, so that no message blocks a caller for ever."""
_NO_TIME: Final = 1e-6
"""Seconds that are rounding, not a wait."""


class RequestLimit:
    """The requests of all callers.

    Args:
        rate: of each caller. After a quiet time it may send `rate.count` requests at once.
        clock: returns monotonic seconds.
        max_callers: of which it keeps the state.
    """

    def __init__(self, rate: Rate, clock: Callable[[], float], *, max_callers: int = MAX_CALLERS) -> None:
        self.rate = rate
        self._clock = clock
        self._max_callers = max_callers
        self._due: OrderedDict[Owner, float] = OrderedDict()
        """The theoretical arrival of each caller's next request."""
        self._taken: dict[Owner, int] = {}
        """Requests that passed here since the last `drain`."""

    def __len__(self) -> int:
        return len(self._due)

    def take(self, caller: Owner) -> float:
        """Return 0 if a request of a caller may pass now, which is then counted; otherwise the seconds to wait.

        A request that may not pass does not count.
        """
        now = self._clock()
        slot = reserve_slot(self.rate, self._due.get(caller, 0.0), now)
        wait = slot.starts_at - now
        if wait > _NO_TIME:
            self._due.move_to_end(caller)
            return wait
        self._set(caller, slot.theoretical_arrival)
        self._taken[caller] = self._taken.get(caller, 0) + 1
        return 0.0

    def drain(self) -> Mapping[Owner, int]:
        """Return how many requests of which callers have passed here since the last call."""
        taken, self._taken = self._taken, {}
        return taken

    def add(self, caller: Owner, count: int) -> None:
        """Count requests that have passed elsewhere; at most twice what a caller may send at once."""
        count = min(count, _BURSTS * self.rate.count)
        if count > 0:
            due = max(self._due.get(caller, 0.0), self._clock())
            self._set(caller, due + count * self.rate.spacing)

    def _set(self, caller: Owner, due: float) -> None:
        self._due[caller] = due
        self._due.move_to_end(caller)
        if len(self._due) > self._max_callers:
            self._due.popitem(last=False)
