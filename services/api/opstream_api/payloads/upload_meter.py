"""Counts the uploads of clients, for `/metrics` of this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from opstream_journal.metrics.instruments import Counts, Gauges, Instrument
from opstream_payloads import PayloadError, PayloadTooLarge

_OUTCOMES: Final = ("stored", "too-large", "unavailable", "broken")


class UploadMeter:
    """The uploads of one process."""

    def __init__(self) -> None:
        self._open = 0
        self._uploads = Counts(
            "opstream_uploads",
            "Uploads that have ended: stored, too-large, unavailable (the store failed) or broken (the client left). "
            "Sum over processes.",
            "outcome",
        )
        for outcome in _OUTCOMES:
            self._uploads.of(outcome)
        self._gauge = Gauges(
            "opstream_uploads_open", "Uploads that are being received now. Sum over processes.", read=self._read
        )

    @property
    def instruments(self) -> tuple[Instrument, ...]:
        """What the page shows."""
        return (self._uploads, self._gauge)

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Count an upload while it comes, and by its end."""
        outcome = "broken"
        self._open += 1
        try:
            yield
            outcome = "stored"
        except PayloadTooLarge:
            outcome = "too-large"
            raise
        except PayloadError:
            outcome = "unavailable"
            raise
        finally:
            self._open -= 1
            self._uploads.of(outcome).value += 1

    def _read(self) -> list[tuple[tuple[()], float]]:
        return [((), self._open)]
