"""How long attempts take, and what becomes of their steps, for `/metrics` of this process."""

from __future__ import annotations

from opstream_journal.metrics.instruments import LONG_SECONDS, Counts, Histogram, Histograms, Instrument
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
        self._steps = Counts(
            "opstream_steps",
            "Steps of attempts that ran, by what became of them. Sum over runners.",
            "action",
            "result",
        )
        self._by_kind: dict[Kind, Histogram] = {}

    @property
    def instruments(self) -> tuple[Instrument, ...]:
        """What the page shows."""
        return (self._seconds, self._steps)

    def observe(self, kind: Kind, seconds: float) -> None:
        """Add an attempt of an action that this process offers."""
        series = self._by_kind.get(kind)
        if series is None:
            series = self._by_kind[kind] = self._seconds.of(str(kind))
        series.observe(seconds)

    def count_step(self, kind: Kind, *, has_failed: bool) -> None:
        """Count a step of an action that this process offers, once its result is stored or its last try has failed."""
        self._steps.of(str(kind), "failed" if has_failed else "succeeded").value += 1
