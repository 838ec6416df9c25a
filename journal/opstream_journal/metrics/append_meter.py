"""How long appends take, and how they fail. Each process counts its own."""

from __future__ import annotations

from typing import Final

from opstream_journal.errors import JournalError, JournalFull, JournalUnavailable, VersionConflict

from .instruments import SHORT_SECONDS, Counts, Histograms, Instrument

_RESULTS: Final[tuple[tuple[type[JournalError], str], ...]] = (
    (VersionConflict, "conflict"),
    (JournalUnavailable, "unavailable"),
    (JournalFull, "full"),
    (JournalError, "refused"),
)
"""Words for what is raised; the first that matches."""


class AppendMeter:
    """The appends of one journal."""

    def __init__(self) -> None:
        self._seconds = Histograms(
            "opstream_append_seconds",
            "From the begin of an append until the journal had its event, for those that it has. Sum over processes.",
            bounds=SHORT_SECONDS,
        )
        self._results = Counts(
            "opstream_appends",
            "Appends to the journal by their result: stored, conflict (another writer was first, so the caller decides "
            "again), unavailable, full or refused. Sum over processes.",
            "result",
        )
        self._stored_seconds = self._seconds.of()
        self._stored = self._results.of("stored")
        self._failed = {error: self._results.of(word) for error, word in _RESULTS}

    @property
    def instruments(self) -> tuple[Instrument, ...]:
        """What the page shows."""
        return (self._seconds, self._results)

    def store(self, seconds: float) -> None:
        """Count an append that was stored within so many seconds."""
        self._stored.value += 1
        self._stored_seconds.observe(seconds)

    def fail(self, error: JournalError) -> None:
        """Count an append that raised."""
        next(count for kind, count in self._failed.items() if isinstance(error, kind)).value += 1
