"""The health port of the API: `/metrics`, which clients must not see, and the probes that `--port` answers, too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from opstream_api.operations.journal_capacity import JournalCapacity
from opstream_api.settings import Settings
from opstream_journal.metrics.page import Metrics
from opstream_journal.runtime.conditions import Conditions
from opstream_journal.runtime.health import HealthServer, listen_for_health

from .readiness import readiness


class HealthPort:
    """What the port shows, from the start of the process to its end.

    Args:
        settings: of the service.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._capacity: JournalCapacity | None = None
        self.conditions = Conditions()
        self.metrics = Metrics()

    def begin_work(self, capacity: JournalCapacity) -> None:
        """Note that the service serves from now on.

        Args:
            capacity: measured for `/readyz`.
        """
        self._capacity = capacity

    def end_work(self) -> None:
        """Note that the service stops."""
        self._capacity = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve the port while the context is open, if the settings name one.

        Raises:
            PortInUse: it can't be listened on.
        """
        if not self._settings.health_port:
            yield
            return
        server = HealthServer(
            listen_for_health(self._settings.health_host, self._settings.health_port),
            lambda: self._capacity is not None,
            self.conditions,
            metrics=self.metrics,
            is_address_chosen=bool(self._settings.health_host),
            readiness=self._answer_readyz,
        )
        server.start()
        try:
            yield
        finally:
            await server.stop()

    async def _answer_readyz(self) -> tuple[int, bytes] | None:
        if self._capacity is None:
            return None
        answer = await readiness(self.conditions, self._capacity)
        return answer.status_code, answer.body
