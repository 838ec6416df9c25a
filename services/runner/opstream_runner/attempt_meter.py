"""How long attempts take, for `/metrics` of this process."""

from __future__ import annotations

from opstream_journal.metrics.instruments import LONG_SECONDS, Histogram, Histograms, Instrument
from opstream_schemas.names import Kind


class AttemptMeter:
    """The attempts of one process, by action."""

    def __init__(self) -> None:
        self._seconds = Histograms(
            "opstream_attempt_seconds",
            "From the call of a handler to its end, however it ended. Sum over runners.",
            "action",
            bounds=LONG_SECONDS,
        )
        self._by_kind: dict[Kind, Histogram] = {}

    @property
    def instruments(self) -> tuple[Instrument, ...]:
        """What the page shows."""
        return (self._seconds,)

    def observe(self, kind: Kind, seconds: float) -> None:
        """Add an attempt of an action that this process offers."""
        series = self._by_kind.get(kind)
        if series is None:
            series = self._by_kind[kind] = self._seconds.of(str(kind))
        series.observe(seconds)
