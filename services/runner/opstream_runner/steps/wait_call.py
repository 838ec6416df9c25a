"""One call of `ActionContext.sleep` or `sleep_until`: over already, or the end of this attempt."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Final

from opstream_schemas.events import WaitBegun

from .step_call import checked_name
from .step_errors import InvalidStep
from .step_table import StepTable

MAX_SLEEP: Final = 3650 * 86_400.0
"""Seconds (ten years): as long as anything in an action's policy."""


class WaitCall:
    """A wait that the attempt has come to. Making it claims the name.

    Args:
        table: the attempt's steps and waits.
        name: by which later attempts find it.
        key: which of several of that name; empty for none.
        until: when it is over; with a time zone.
        hold: whether the operation keeps its exclusive resource.
        place: where in the code, for messages.

    Raises:
        InvalidStep: name or key are not valid, or the attempt had a wait of that name and key.
    """

    def __init__(self, table: StepTable, name: str, key: str | int, until: datetime, *, hold: bool, place: str) -> None:
        self._table = table
        self._wait = WaitBegun(
            attempt=table.attempt,
            wait=checked_name(name, "name"),
            key=checked_name(key, "key") if key != "" else "",
            until=until,
            hold=bool(hold),
        )
        table.claim(self._wait.wait, self._wait.key, place, what="wait")

    def run(self) -> None:
        """Return if it is over; otherwise end the attempt.

        Raises:
            AttemptSuspended: it begins.
            ActionCanceledError: the attempt cleans up from here on.
        """
        if not self._is_over:
            if self._table.clean_up is not None:
                self._table.clean_up.stop_here()
            self._table.on_wait(self._wait)

    async def run_async(self) -> None:
        """Do as `run` does, once it is awaited.

        Raises:
            AttemptSuspended: it begins.
            asyncio.CancelledError: the attempt cleans up from here on.
        """
        if not self._is_over:
            if self._table.clean_up is not None:
                await self._table.clean_up.stop_here_async()
            self._table.on_wait(self._wait)

    @property
    def _is_over(self) -> bool:
        if self._table.is_over(self._wait.wait, self._wait.key):
            return True
        return self._wait.until is None or self._wait.until <= self._table.clock.now()


def end_of_sleep(seconds: float, now: datetime) -> datetime:
    """Return when a sleep that begins now is over.

    Raises:
        InvalidStep: the seconds are no number from 0 to ten years.
    """
    if type(seconds) not in {int, float} or not 0 <= seconds <= MAX_SLEEP or math.isnan(seconds):
        raise InvalidStep(f"a sleep takes 0 to {MAX_SLEEP:.0f} seconds, not {seconds!r}")
    return now + timedelta(seconds=seconds)


def checked_moment(until: datetime) -> datetime:
    """Return a time to sleep until.

    Raises:
        InvalidStep: it has no time zone.
    """
    if not isinstance(until, datetime) or until.tzinfo is None:
        raise InvalidStep(f"sleep_until takes a datetime with a time zone (datetime.now(UTC) + ...), not {until!r}")
    return until
