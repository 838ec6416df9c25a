"""Rates of attempts, `100/m`, as slots in time (GCRA). Pure. Callers: `gate.py` of the runner, tests.

What is remembered of an action is one moment: when its last slot would be due if slots were evenly spaced. After a time
without attempts as many may begin at once as the rate allows for its unit; after that they are spaced.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_RATE_REGEX: Final = re.compile(r"([1-9][0-9]{0,8})/([smhd])")


class Rate(msgspec.Struct, frozen=True):
    """So many in so many seconds."""

    count: int
    seconds: float

    @property
    def spacing(self) -> float:
        """Seconds between two slots."""
        return self.seconds / self.count


class Slot(msgspec.Struct, frozen=True):
    """A slot that was taken."""

    starts_at: float
    """When the attempt may begin; `now` for at once. Unix seconds."""
    theoretical_arrival: float
    """What is to be remembered."""


def parse_rate(text: str) -> Rate:
    """Parse `COUNT/UNIT`: a whole number for each s, m, h or d.

    Raises:
        ValueError: the text has another form.
    """
    found = _RATE_REGEX.fullmatch(text)
    if found is None:
        raise ValueError(f"a rate is a whole number for each s, m, h or d, as in '100/m', not {text!r}")
    return Rate(int(found[1]), _SECONDS[found[2]])


def reserve_slot(rate: Rate, due: float, now: float) -> Slot:
    """Take the next slot.

    Any time of w seconds has at most `count` + w / `spacing` slots, and they come in the order in which they are taken.
    A clock that goes wrong only shifts them.

    Args:
        rate: the action's.
        due: what was remembered of it; 0 for nothing.
        now: Unix seconds.
    """
    due = max(due, now)
    return Slot(starts_at=max(now, due - rate.seconds + rate.spacing), theoretical_arrival=due + rate.spacing)
