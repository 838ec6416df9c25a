"""Keepers of `/openapi.json` and `/asyncapi.json` in their encoded form. Made by `main.py`, called by `app.py`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from opstream_journal import ActionCatalog, JournalError
from opstream_schemas.action_spec import ActionSpec

logger = logging.getLogger(__name__)


class DocumentCache:
    """A document of the actions that there are, encoded; made again once the catalog has changed.

    Args:
        catalog: what to describe.
        make: the document of actions, which come sorted.
    """

    def __init__(self, catalog: ActionCatalog, make: Callable[[Iterable[ActionSpec]], dict[str, Any]]) -> None:
        self._catalog = catalog
        self._make = make
        self._encoded: bytes | None = None
        catalog.on_change(self._forget)

    async def current(self) -> bytes:
        """JSON, with every action announced by now; while the broker is away, with those that are known."""
        try:
            await self._catalog.refresh()
        except JournalError as error:
            logger.info("describing the actions that are known: %s", error)
        return self.encoded()

    def encoded(self) -> bytes:
        """JSON, of what is known."""
        if self._encoded is None:
            specs = self._catalog.specs
            self._encoded = msgspec.json.encode(self._make(specs[kind] for kind in sorted(specs)))
        return self._encoded

    def _forget(self) -> None:
        self._encoded = None
