"""Counts the payloads that a process stores and reads, and how that fails. Each process counts its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from opstream_journal.metrics.instruments import Counts, Instrument

from .errors import PayloadDamaged, PayloadMissing, StoreUnavailable
from .store import READ, STORED

_REASONS: Final = ((StoreUnavailable, "unavailable"), (PayloadMissing, "missing"), (PayloadDamaged, "damaged"))
"""Words for what is raised. What is too large is the sender's, and no failure of the store."""


class PayloadMeter:
    """The payloads of one process."""

    def __init__(self) -> None:
        self._payloads = Counts(
            "opstream_payloads",
            "Payloads that were stored, or read to the end: inputs, results, files, parts of them. Sum over processes.",
            "act",
        )
        self._bytes = Counts("opstream_payload_bytes", "Bytes of payloads, as they passed. Sum over processes.", "act")
        self._failures = Counts(
            "opstream_payload_failures",
            "Payloads that could not be stored or read: the store was unavailable, had none, or had other bytes. Sum "
            "over processes.",
            *("act", "reason"),
        )
        for act in (STORED, READ):
            self._payloads.of(act)
            self._bytes.of(act)
        for _, word in _REASONS:  # each from the beginning, so that the first failure is a rate
            self._failures.of(READ, word)
        self._failures.of(STORED, "unavailable")

    @property
    def instruments(self) -> tuple[Instrument, ...]:
        """What the page shows."""
        return (self._payloads, self._bytes, self._failures)

    def note_bytes(self, act: str, size: int) -> None:
        """Count bytes that passed."""
        self._bytes.of(act).value += size

    @contextmanager
    def counted(self, act: str) -> Iterator[None]:
        """Count a payload once its last byte has passed, or its failure. A reader that leaves early counts as neither.

        Args:
            act: `STORED` or `READ`.
        """
        try:
            yield
        except tuple(kind for kind, _ in _REASONS) as error:
            self._failures.of(act, next(word for kind, word in _REASONS if isinstance(error, kind))).value += 1
            raise
        self._payloads.of(act).value += 1
