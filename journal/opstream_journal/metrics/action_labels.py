"""Names of actions as labels. What an outsider can invent never becomes a series."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Final

from opstream_schemas.names import Kind

MAX_ACTIONS: Final = 1_000
"""Actions with series of their own, at most; the rest share those of `OTHER`."""
OTHER: Final = "other"
"""The label of all actions that the catalog does not have. No action has this name, since each has a colon."""


class ActionLabels:
    """Labels for actions of the catalog.

    Args:
        known: returns the actions of the catalog now.
        limit: see `MAX_ACTIONS`.
    """

    def __init__(self, known: Callable[[], Container[Kind]], *, limit: int = MAX_ACTIONS) -> None:
        self._known = known
        self._limit = limit
        self._labels: dict[Kind, str] = {}

    def label(self, kind: Kind) -> str:
        """Return the label of an action: its name if the catalog has it, otherwise `OTHER`."""
        found = self._labels.get(kind)
        if found is not None:
            return found
        if len(self._labels) >= self._limit or kind not in self._known():
            return OTHER
        label = self._labels[kind] = str(kind)
        return label
