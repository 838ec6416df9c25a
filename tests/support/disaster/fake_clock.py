"""Gives one process another clock: libfaketime, preloaded. A monotonic clock stays as it is.

process = Process("runner", extra=fake_clock(3600))  # an hour ahead
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_PLACES: Final = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib*/faketime/libfaketimeMT.so.1")


def library() -> Path | None:
    """The library for programs with threads; None if it is not installed."""
    return next((path for place in _PLACES for path in Path("/").glob(place.removeprefix("/"))), None)


def fake_clock(seconds: int) -> dict[str, str]:
    """The variables under which a process's clock is off by `seconds`."""
    return {"LD_PRELOAD": str(library()), "FAKETIME": f"{seconds:+}", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
