"""The logic of calls about many operations, without I/O. See `opstream.client.flows`."""

from __future__ import annotations

from typing import Final

from opstream.client.flows import Flows
from opstream.client.io_requests import Flow
from opstream.client.models import OperationCount, OperationPage
from opstream.client.responses import parse_count, parse_page

_AGAIN: Final = "ask again later"


class ListFlows:
    """The calls about many operations of one client.

    Args:
        flows: of the client.
    """

    def __init__(self, flows: Flows) -> None:
        self._flows = flows

    def page(self, query: str, *, timeout: float | None) -> Flow[OperationPage]:
        """`OperationsClient.page`."""
        url = self._flows.urls.operations(query)
        return parse_page((yield from self._flows.exchange("GET", url, hint=_AGAIN, timeout=timeout)))

    def count(self, query: str, *, timeout: float | None) -> Flow[OperationCount]:
        """`OperationsClient.count`."""
        url = self._flows.urls.operations(query, "count")
        return parse_count((yield from self._flows.exchange("GET", url, hint=_AGAIN, timeout=timeout)))
