"""Erases a confidential operation (docs/confidential.md)."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import urlencode

from opstream.client.errors import InvalidRequest
from opstream.client.flows import Flows
from opstream.client.io_requests import Flow
from opstream.client.models import Operation
from opstream.client.responses import response_error
from opstream_schemas.event_types.erasure import REASON_LIMIT


class EraseFlow:
    """The call about erasure.

    Args:
        flows: of the client.
    """

    def __init__(self, flows: Flows) -> None:
        self._flows = flows

    def erase(self, operation: Operation | str, *, reason: str, timeout: float | None) -> Flow[None]:
        """`OperationsClient.erase`."""
        operation_id, url = self._flows.id_and_url(operation)
        if len(reason.encode()) > REASON_LIMIT:
            raise InvalidRequest(f"the reason has more than {REASON_LIMIT} bytes: shorten it")
        query = f"?{urlencode({'reason': reason})}" if reason else ""
        hint = "erasing twice is safe, so erase it again"
        response = yield from self._flows.exchange("DELETE", f"{url}{query}", hint=hint, timeout=timeout)
        if response.status != HTTPStatus.NO_CONTENT:
            raise response_error(response, f"the erasure of operation {operation_id}")
