"""A document about the actions of the catalog, kept encoded: `/openapi.json` and `/asyncapi.json`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from opstream_journal import ActionCatalog, JournalError
from opstream_schemas.action_spec import ActionSpec

logger = logging.getLogger(__name__)


class DocumentCache:
    """Keeps an encoded document until the catalog changes.

    Args:
        catalog: the actions to describe.
        build: builds the document of the actions, which it gets in order.
    """

    def __init__(self, catalog: ActionCatalog, build: Callable[[Iterable[ActionSpec]], dict[str, Any]]) -> None:
        self._catalog = catalog
        self._build = build
        self._encoded: bytes | None = None
        catalog.on_change(self._forget)

    async def current(self) -> bytes:
        """Return the document of all announced actions as JSON; of the known ones if the broker is unreachable."""
        try:
            await self._catalog.refresh()
        except JournalError as error:
            logger.info("the document has only the known actions: %s", error)
        return self.encoded()

    def encoded(self) -> bytes:
        """Return the document of the known actions as JSON, without I/O."""
        if self._encoded is None:
            specs = self._catalog.specs
            self._encoded = msgspec.json.encode(self._build(specs[kind] for kind in sorted(specs)))
        return self._encoded

    def _forget(self) -> None:
        self._encoded = None
