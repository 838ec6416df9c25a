"""A signal to an operation, sent until the service says what became of it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import msgspec

from opstream.client.errors import InvalidRequest
from opstream.client.flows import Flows
from opstream.client.io_requests import Flow
from opstream.client.models import Operation
from opstream.client.responses import not_from_opstream, response_error
from opstream_schemas.errors import InvalidName
from opstream_schemas.names import check_signal_name
from opstream_schemas.signals.signal_decision import SignalState

__all__ = ["SignalFlow", "SignalState"]

_SENT: Final = "Thu, 01 Jan 1970 00:00:00 GMT"
"""The time of the first try is a part of the request's name. The id alone makes that unique, so it is always this."""


class SignalFlow:
    """The calls about signals.

    Args:
        flows: of the client.
    """

    def __init__(self, flows: Flows) -> None:
        self._flows = flows

    def send(
        self,
        operation: Operation | str,
        name: str,
        payload: Any,  # noqa: ANN401 - any JSON
        *,
        request_id: str | None,
        timeout: float | None,
    ) -> Flow[SignalState]:
        """`OperationsClient.signal`."""
        url = operation.url if isinstance(operation, Operation) else self._flows.urls.status(operation)
        try:
            check_signal_name(name)
            content = msgspec.json.encode(payload)
        except (InvalidName, msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
            raise InvalidRequest(f"the signal can't be sent: {error}") from error
        # Each try sends the same names and the same bytes, so trying again is safe.
        headers = {"Repeatability-Request-ID": request_id or self._flows.new_id(), "Repeatability-First-Sent": _SENT}
        hint = f"send it again with request_id={headers['Repeatability-Request-ID']!r}"
        response = yield from self._flows.exchange(
            "POST", f"{url}:signal/{name}", content, hint=hint, timeout=timeout, headers=headers
        )
        what = f"the signal {name!r} to {url.rpartition('/')[2]}"
        if response.status not in {HTTPStatus.OK, HTTPStatus.NO_CONTENT}:
            raise response_error(response, what)
        try:
            return SignalState(response.headers.get("Signal-State", ""))
        except ValueError as error:
            raise not_from_opstream(response, what) from error
