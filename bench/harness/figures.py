"""Percentiles."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

import msgspec


class Latency(msgspec.Struct, frozen=True):
    """Percentiles, in milliseconds."""

    p50: float
    p99: float
    max: float


def percentiles(seconds: Iterable[float]) -> Latency:
    """The percentiles of times."""
    ordered = sorted(seconds)
    rank = max(0, math.ceil(len(ordered) * 0.99) - 1)
    return Latency(p50=statistics.median(ordered) * 1000, p99=ordered[rank] * 1000, max=ordered[-1] * 1000)
