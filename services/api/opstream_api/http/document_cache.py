"""A document about the actions of the catalog, kept encoded: `/openapi.json` and `/asyncapi.json`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Final

import msgspec

from opstream_journal import ActionCatalog, JournalError
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.names import Kind

logger = logging.getLogger(__name__)

_MAX_SELECTIONS: Final = 32
"""Documents that are kept at once, one for each selection of actions."""


class DocumentCache:
    """Keeps an encoded document of each selection of actions until the catalog changes.

    Args:
        catalog: the actions to describe.
        build: builds the document of the actions, which it gets in order.
    """

    def __init__(self, catalog: ActionCatalog, build: Callable[[Iterable[ActionSpec]], dict[str, Any]]) -> None:
        self._catalog = catalog
        self._build = build
        self._encoded: dict[Hashable, bytes] = {}
        catalog.on_change(self._forget)

    async def current(self, selection: Hashable = None, is_shown: Callable[[Kind], bool] | None = None) -> bytes:
        """Return the document of all announced actions as JSON; of the known ones if the broker is unreachable.

        Args:
            selection: equal for the same selection of actions; None for all.
            is_shown: tells of an action whether it is selected; None for all.
        """
        try:
            await self._catalog.refresh()
        except JournalError as error:
            logger.info("the document has only the known actions: %s", error)
        return self.encoded(selection, is_shown)

    def encoded(self, selection: Hashable = None, is_shown: Callable[[Kind], bool] | None = None) -> bytes:
        """Return the document of the known actions as JSON, without I/O; for the arguments see `current`."""
        encoded = self._encoded.get(selection)
        if encoded is None:
            specs = self._catalog.specs
            kinds = [kind for kind in sorted(specs) if is_shown is None or is_shown(kind)]
            encoded = msgspec.json.encode(self._build(specs[kind] for kind in kinds))
            if len(self._encoded) >= _MAX_SELECTIONS:
                self._encoded.clear()
            self._encoded[selection] = encoded
        return encoded

    def _forget(self) -> None:
        self._encoded.clear()
