"""The search for the next wall time of a cron expression, which ends. Imported only where there is an expression."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from cronsim import CronSim

YEARS_SEARCHED: Final = 8
"""After the year in which a search begins. 29 February comes at least once in them."""


class BoundedCron(CronSim):
    """The wall times of an expression after one, in order, within `YEARS_SEARCHED`.

    `CronSim` alone looks 50 years ahead for each of them, which an expression of rare days makes slow.

    Args:
        cron: the expression.
        after: without a zone.

    Raises:
        CronSimError: it is none.
    """

    def __init__(self, cron: str, after: datetime) -> None:
        super().__init__(cron, after)
        self._last_year = after.year + YEARS_SEARCHED

    def advance_month(self) -> None:
        """Go to the first month that matches; end the iteration behind the last year."""
        if self.dt.year <= self._last_year:
            super().advance_month()
        if self.dt.year > self._last_year:
            raise StopIteration
