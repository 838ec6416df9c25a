"""The endpoints as they are now: read at the start, and again when the process is told to. Callers: all parts."""

from __future__ import annotations

import logging

from .config import Hooks, InvalidConfig, Source, describe

logger = logging.getLogger(__name__)


class LiveHooks:
    """Keeps the endpoints of a source.

    Raises:
        InvalidConfig: they can't be used.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.current: Hooks = source.load()

    def reload(self) -> None:
        """Read again; what can't be used is told, and what was there stays."""
        try:
            self.current = self._source.load()
        except InvalidConfig as error:
            logger.error("the endpoints stay as they were: %s", error)  # noqa: TRY400 - no bug here
        else:
            self.tell()

    def tell(self) -> None:
        """Say what is configured."""
        shown = describe(self.current)
        endpoints, callbacks = (", ".join(shown[key]) or "none" for key in ("endpoints", "callbacks"))
        logger.info("endpoints: %s; callbacks to: %s", endpoints, callbacks)
