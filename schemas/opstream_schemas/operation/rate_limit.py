"""Rate limit of attempts, such as `100/m`, by the generic cell rate algorithm (GCRA). Pure.

The state of an action is one time, its theoretical arrival time: when its next attempt would start if all were evenly
spaced. After a quiet time, as many attempts start at once as the rate allows per unit; the next ones are spaced evenly.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_RATE_REGEX: Final = re.compile(r"([1-9][0-9]{0,8})/([smhd])")


MAX_AHEAD: Final = 60.0
"""Seconds that the clocks of runners may differ. Beyond that, a stored time in the future is a wrong clock's."""


FIRST_SLOT: Final = "rate"
SECOND_SLOT: Final = "late"
"""The reason in the subject of a wake-up for a slot: its kind, a hyphen, and the slot in Unix milliseconds."""


class Rate(msgspec.Struct, frozen=True):
    """`count` attempts in `seconds` seconds."""

    count: int
    seconds: float

    @property
    def spacing(self) -> float:
        """Return the seconds between two evenly spaced slots."""
        return self.seconds / self.count

    def __str__(self) -> str:
        return f"{self.count}/{next(unit for unit, seconds in _SECONDS.items() if seconds == self.seconds)}"


class Slot(msgspec.Struct, frozen=True):
    """A reserved slot. Times in Unix seconds."""

    starts_at: float
    """When the attempt may start; `now` for at once."""
    theoretical_arrival: float
    """The new state of the action, to be stored."""
    since: float = 0.0
    """When the spacing began, after a quiet time; to be stored, too."""


def parse_rate(text: str) -> Rate:
    """Parse `COUNT/UNIT`, the unit being s, m, h or d.

    Raises:
        ValueError: the text has another form.
    """
    found = _RATE_REGEX.fullmatch(text)
    if found is None:
        raise ValueError(f"a rate is a whole number for each s, m, h or d, as in '100/m', not {text!r}")
    return Rate(int(found[1]), _SECONDS[found[2]])


def parse_slot(reason: str) -> tuple[str, float]:
    """Return the kind of slot that a wake-up is for, and the slot in Unix seconds; `("", 0.0)` for any other reason."""
    word, _, milliseconds = reason.partition("-")
    if word in {FIRST_SLOT, SECOND_SLOT} and milliseconds.isascii() and milliseconds.isdigit():
        return word, int(milliseconds) / 1000
    return "", 0.0


def reserve_slot(rate: Rate, due: float, now: float, since: float = 0.0) -> Slot:
    """Reserve the next slot.

    A window of w seconds has at most `count` + w / `spacing` slots, in the order in which they were reserved, as long
    as clocks differ by no more than `MAX_AHEAD`. A clock that was further ahead moved all slots with it; what it moved
    is taken back, or the action would stand still until that time.

    Args:
        rate: the action's rate.
        due: the stored `theoretical_arrival`; 0 for none.
        now: Unix seconds.
        since: as stored with `due`; 0 if it is not known.
    """
    if since > now + MAX_AHEAD:
        due -= since - now
        since = now
    if due <= now:
        due = since = now
    starts_at = max(now, due - rate.seconds + rate.spacing)
    return Slot(starts_at=starts_at, theoretical_arrival=due + rate.spacing, since=since)
