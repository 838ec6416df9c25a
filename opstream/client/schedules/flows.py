"""The logic of each call about schedules, without I/O. See `opstream.client.flows`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final, TypeVar

import msgspec

from opstream.client.errors import InvalidRequest
from opstream.client.flows import Flows
from opstream.client.io_requests import Flow, ServiceResponse
from opstream.client.models import Operation
from opstream.client.responses import UNDECODABLE, not_from_opstream, parse_operation, response_error

from .models import MadeUpMoment, ScheduleOccurrence, ScheduleView

T = TypeVar("T")

_AGAIN: Final = "ask again later"
_SAFE: Final = "sending it again is safe"
_NO_BODY: Final = b"{}"


class ScheduleFlows:
    """The calls about schedules of one client.

    Args:
        flows: of the client.
    """

    def __init__(self, flows: Flows) -> None:
        self._flows = flows

    def set(self, name: str, definition: Mapping[str, Any], *, timeout: float | None) -> Flow[ScheduleView]:
        """`ScheduleCalls.set`."""
        url = self._flows.urls.schedule(_named(name))
        try:
            content = msgspec.json.encode(dict(definition))
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidRequest(f"the schedule can't be written as JSON: {error}") from error
        response = yield from self._flows.exchange("PUT", url, content, hint=_SAFE, timeout=timeout)
        return _decoded(response, ScheduleView, _what(name))

    def get(self, name: str, *, timeout: float | None) -> Flow[ScheduleView]:
        """`ScheduleCalls.get`."""
        url = self._flows.urls.schedule(_named(name))
        response = yield from self._flows.exchange("GET", url, hint=_AGAIN, timeout=timeout)
        return _decoded(response, ScheduleView, _what(name))

    def list(self, *, timeout: float | None) -> Flow[tuple[ScheduleView, ...]]:
        """`ScheduleCalls.list`."""
        response = yield from self._flows.exchange("GET", self._flows.urls.schedule(), hint=_AGAIN, timeout=timeout)
        return _listed(response, ScheduleView, "the schedules")

    def delete(self, name: str, *, timeout: float | None) -> Flow[None]:
        """`ScheduleCalls.delete`."""
        url = self._flows.urls.schedule(_named(name))
        response = yield from self._flows.exchange("DELETE", url, hint=_SAFE, timeout=timeout)
        if response.status != HTTPStatus.NO_CONTENT:
            raise response_error(response, _what(name))

    def change(self, name: str, act: str, *, timeout: float | None) -> Flow[ScheduleView]:
        """`ScheduleCalls.pause` and `ScheduleCalls.resume`; the act is one of these words."""
        url = self._flows.urls.schedule(_named(name), f":{act}")
        response = yield from self._flows.exchange("POST", url, _NO_BODY, hint=_SAFE, timeout=timeout)
        return _decoded(response, ScheduleView, _what(name))

    def preview(self, name: str, count: int, *, timeout: float | None) -> Flow[tuple[datetime, ...]]:
        """`ScheduleCalls.preview`."""
        url = self._flows.urls.schedule(_named(name), f":preview?count={count}")
        response = yield from self._flows.exchange("GET", url, hint=_AGAIN, timeout=timeout)
        return _listed(response, datetime, _what(name))

    def history(self, name: str, *, timeout: float | None) -> Flow[tuple[ScheduleOccurrence, ...]]:
        """`ScheduleCalls.history`."""
        url = self._flows.urls.schedule(_named(name), "/history")
        response = yield from self._flows.exchange("GET", url, hint=_AGAIN, timeout=timeout)
        return _listed(response, ScheduleOccurrence, _what(name))

    def trigger(self, name: str, *, timeout: float | None) -> Flow[Operation]:
        """`ScheduleCalls.trigger`."""
        url = self._flows.urls.schedule(_named(name), ":trigger")
        # A second later the same request is another operation, so it is not sent again.
        hint = "an operation may have begun: look at the schedule's history before you trigger it again"
        response = yield from self._flows.exchange("POST", url, _NO_BODY, hint=hint, timeout=timeout, may_repeat=False)
        if response.status != HTTPStatus.ACCEPTED:
            raise response_error(response, _what(name))
        operation_id = response.headers.get("Operation-Id", "")
        status_url = self._flows.urls.status(operation_id, response.headers.get("Operation-Location"))
        return parse_operation(response, operation_id, status_url, _what(name))

    def backfill(
        self, name: str, begin: datetime, end: datetime, *, timeout: float | None
    ) -> Flow[tuple[MadeUpMoment, ...]]:
        """`ScheduleCalls.backfill`."""
        url = self._flows.urls.schedule(_named(name), ":backfill")
        if begin.tzinfo is None or end.tzinfo is None:
            raise InvalidRequest("the times of a backfill need their zone")
        content = msgspec.json.encode({"from": begin, "to": end})
        response = yield from self._flows.exchange("POST", url, content, hint=_SAFE, timeout=timeout)
        return _listed(response, MadeUpMoment, _what(name))


def _named(name: str) -> str:
    """Return the name of a schedule, which may not be empty: that would be the URL of all."""
    if not name:
        raise InvalidRequest("a schedule has a name: 1 to 40 characters of a-z, 0-9 and '-'")
    return name


def _what(name: str) -> str:
    return f"schedule {name}"


def _decoded(response: ServiceResponse, kind: type[T], what: str) -> T:
    if response.status not in {HTTPStatus.OK, HTTPStatus.CREATED}:
        raise response_error(response, what)
    try:
        return msgspec.json.decode(response.content, type=kind)
    except UNDECODABLE as error:
        raise not_from_opstream(response, what) from error


def _listed(response: ServiceResponse, kind: type[T], what: str) -> tuple[T, ...]:
    found: dict[str, tuple[T, ...]] = _decoded(response, dict[str, tuple[kind, ...]], what)  # type: ignore[valid-type]
    return found.get("value", ())
