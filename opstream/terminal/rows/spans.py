"""Spans of time in short, as the columns of tables show them."""

from __future__ import annotations

from typing import Final

_MINUTE: Final = 60
_HOUR: Final = 3_600
_DAY: Final = 86_400
_UNITS: Final = ((1, _MINUTE, "s"), (_MINUTE, _HOUR, "min"), (_HOUR, _DAY, "h"))
"""The seconds of each unit, and those of the next one."""


def shown_span(seconds: float) -> str:
    """Return a span of seconds with its unit: `850 ms`, `1.2 s`, `4.1 min`, `3.5 h`, `12 d`."""
    if seconds < 0.9995:
        return f"{max(0.0, seconds) * 1_000:.0f} ms"
    for size, next_size, unit in _UNITS:
        if seconds < next_size - size / 2:
            return _with_unit(seconds / size, unit)
    return _with_unit(seconds / _DAY, "d")


def _with_unit(value: float, unit: str) -> str:
    return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"
