"""The logic of calls about many operations, without I/O. See `opstream.client.flows`."""

from __future__ import annotations

from typing import Final

import msgspec

from opstream.client.flows import Flows
from opstream.client.io_requests import Flow
from opstream.client.models import BulkPreview, Operation, OperationCount, OperationPage
from opstream.client.responses import parse_count, parse_operation, parse_page, parse_preview

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

    def bulk(
        self, act: str, query: str, *, reason: str, operation_id: str | None, timeout: float | None
    ) -> Flow[Operation]:
        """`OperationsClient.bulk`."""
        chosen_id = self._flows.new_id() if operation_id is None else operation_id
        response = yield from self._flows.exchange(
            "POST",
            self._flows.urls.operations(query, act),
            msgspec.json.encode({"reason": reason} if reason else {}),
            headers={"Operation-Id": chosen_id},
            hint=f"send it again with operation_id={chosen_id!r}",
            timeout=timeout,
        )
        return parse_operation(response, chosen_id, self._flows.urls.status(chosen_id), f"the bulk {act}")

    def preview(self, act: str, query: str, *, timeout: float | None) -> Flow[BulkPreview]:
        """`OperationsClient.preview`."""
        url = self._flows.urls.operations(f"{query}&dryRun=true", act)
        return parse_preview((yield from self._flows.exchange("POST", url, b"{}", hint=_AGAIN, timeout=timeout)))
