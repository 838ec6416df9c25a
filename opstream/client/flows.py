"""What each call of a client does, step by step. Called by `sync` and `aio`, which do the steps (see `steps`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, TypeAlias

import msgspec

from opstream_schemas.events import Canceled
from opstream_schemas.operation.state import Status

from .errors import (
    InvalidRequest,
    OperationCanceled,
    OperationFailed,
    OperationsError,
    ServiceUnavailable,
    WaitTimeout,
)
from .models import Operation
from .responses import (
    EVENT_STREAM,
    decode_result,
    is_event_stream,
    parse_history,
    parse_operation,
    parse_stream_event,
    response_error,
)
from .retries import RetryBudget, describe_outcome, is_transient, retry_after
from .sse import EventStreamParser
from .steps import (
    CallFunction,
    CloseStream,
    Flow,
    NoResponse,
    ReadStream,
    SendRequest,
    ServiceResponse,
    Sleep,
    YieldEvent,
)
from .urls import ServiceUrls

OnChange: TypeAlias = Callable[[Operation], Any]
OnRetry: TypeAlias = Callable[[str, float], Any]

_JSON: Final = "application/json"
_OWN_HEADERS: Final = frozenset({"accept", "content-type", "operation-id"})
_RESPONSE_TIMEOUT: Final = 10.0
"""Seconds. A submit is answered within 5, whatever the broker does."""
_STREAM_TIMEOUT: Final = 40.0
"""Seconds. The service sends a comment every 15, so two in a row are lost."""
_MIN_TIMEOUT: Final = 1.0
"""Seconds that even the last try gets."""
_MAX_SERVER_WAIT: Final = 30
"""Seconds to ask for with `Prefer: wait`: proxies give up on a silent request after 60 or 100."""
_SERVER_WAIT_MARGIN: Final = 0.5
"""Seconds by which a held answer has to come before the time of the call is up."""
_POLL_INTERVAL: Final = 1.0
"""Seconds between polls where an answer does not tell."""


class Flows:
    """The calls of a client.

    Args:
        service: where to.
        headers: sent with every request.
        clock: monotonic seconds.
        jitter: draws from [0, 1).
        new_id: draws operation ids.
        on_retry: called with the trouble and the seconds until the next try; None for nobody.
    """

    def __init__(
        self,
        service: ServiceUrls,
        *,
        headers: Mapping[str, str],
        clock: Callable[[], float],
        jitter: Callable[[], float],
        new_id: Callable[[], str],
        on_retry: OnRetry | None,
    ) -> None:
        self._service = service
        self._headers = dict(headers)
        self._clock = clock
        self._jitter = jitter
        self._new_id = new_id
        self._on_retry = on_retry

    def submit(
        self,
        target: str,
        action_input: Any,  # noqa: ANN401 - whatever becomes JSON
        *,
        operation_id: str | None,
        headers: Mapping[str, str] | None,
        timeout: float | None,
    ) -> Flow[Operation]:
        """`OperationsClient.submit`."""
        given = self._new_id() if operation_id is None else operation_id
        status_url = self._service.status(given)
        own = {name: value for name, value in (headers or {}).items() if name.lower() not in _OWN_HEADERS}
        # The same id and the same bytes with each try: that is what makes it safe to try again.
        post = self._post(self._service.action(target), _encode_json(action_input), {**own, "Operation-Id": given})
        what = f"{target.removeprefix('/')} with operation id {given}"
        patience = self._retry_budget(timeout)
        reply, _ = yield from self._exchange(post, patience, given, f"submit it again with operation_id={given!r}")
        if reply.status != HTTPStatus.ACCEPTED:
            raise response_error(reply, what)
        operation = parse_operation(reply, given, status_url, what)
        location = reply.headers.get("Operation-Location")
        return Operation(self._service.status(given, location), operation.monitor)

    def status(self, operation: Operation | str, *, timeout: float | None) -> Flow[Operation]:
        """`OperationsClient.status`."""
        operation_id, url = self._id_and_url(operation)
        reply, _ = yield from self._exchange(
            self._get(url), self._retry_budget(timeout), operation_id, "ask again later"
        )
        return parse_operation(reply, operation_id, url, f"operation {operation_id}")

    def cancel(self, operation: Operation | str, *, reason: str, timeout: float | None) -> Flow[Operation]:
        """`OperationsClient.cancel`."""
        operation_id, url = self._id_and_url(operation)
        post = self._post(f"{url}:cancel", _encode_json({"reason": reason} if reason else {}), {})
        patience = self._retry_budget(timeout)
        reply, _ = yield from self._exchange(
            post, patience, operation_id, "canceling twice is safe, so cancel it again"
        )
        return parse_operation(reply, operation_id, url, f"canceling operation {operation_id}")

    def wait(self, operation: Operation | str, *, timeout: float | None, on_change: OnChange | None) -> Flow[Operation]:
        """`OperationsClient.wait`."""
        operation_id, url = self._id_and_url(operation)
        seen = operation if isinstance(operation, Operation) else None
        patience = self._retry_budget(timeout)
        # The first request does not wait for the pace that the submit named: it asks to be held, so it is no poll.
        hold = _POLL_INTERVAL if on_change else _MAX_SERVER_WAIT
        while True:
            try:
                get = self._get(url, hold=int(max(0.0, min(hold, patience.remaining() - _SERVER_WAIT_MARGIN))))
                reply, took = yield from self._exchange(get, patience, operation_id, "wait for it again")
            except ServiceUnavailable as error:
                # Whoever waits in a loop of short waits must not ask more often than the service wants.
                yield Sleep(patience.remaining())
                raise _wait_timeout(operation_id, seen, patience.seconds, error.trouble) from error
            now = parse_operation(reply, operation_id, url, f"operation {operation_id}")
            if on_change is not None and (seen is None or now.monitor != seen.monitor):
                yield CallFunction(on_change, (now,))
            seen = now
            if now.is_terminal:
                return now
            patience.reset_pauses()
            pace = retry_after(reply) or _POLL_INTERVAL  # 0 would be a busy loop
            # Whoever watches wants to see each step, not only the end, at the pace that the service asks for.
            hold = min(pace, _MAX_SERVER_WAIT) if on_change else _MAX_SERVER_WAIT
            if "Preference-Applied" in reply.headers:
                pace -= took  # the service has let us wait already
            if pace > 0:
                yield Sleep(min(pace, patience.remaining()))
            if not patience.remaining():
                raise _wait_timeout(operation_id, seen, patience.seconds, "")

    def result(
        self,
        operation: Operation | str,
        result_type: Any,  # noqa: ANN401 - whatever msgspec takes for a type
        *,
        timeout: float | None,
        on_change: OnChange | None,
    ) -> Flow[Any]:
        """`OperationsClient.result`."""
        ended = yield from self.wait(operation, timeout=timeout, on_change=on_change)
        match ended.status:
            case Status.SUCCEEDED:
                return decode_result(ended, result_type)
            case Status.FAILED:
                raise OperationFailed(ended)
            case _:
                raise OperationCanceled(ended, (yield from self._cancel_reason(ended)))

    def history(self, operation: Operation | str, *, after: int, timeout: float | None) -> Flow[None]:
        """`OperationsClient.events`, those that there are."""
        operation_id, url = self._id_and_url(operation)
        what = f"the history of operation {operation_id}"
        patience = self._retry_budget(timeout)
        reply, _ = yield from self._exchange(self._get(f"{url}/events"), patience, operation_id, "ask again later")
        for event in parse_history(reply, what):
            if event.position > after:
                yield YieldEvent(event)

    def follow(self, operation: Operation | str, *, after: int, timeout: float | None) -> Flow[None]:
        """`OperationsClient.events`, until the operation has ended."""
        operation_id, url = self._id_and_url(operation)
        what = f"the history of operation {operation_id}"
        hint = "ask again with after= the position of the last one that you have"
        patience = self._retry_budget(timeout)
        while True:
            reply, _ = yield from self._exchange(self._stream(f"{url}/events", after), patience, operation_id, hint)
            if reply.status == HTTPStatus.NO_CONTENT:
                return
            if not is_event_stream(reply):
                raise response_error(reply, what)
            stream = EventStreamParser()
            while True:
                chunk = yield ReadStream()
                if isinstance(chunk, NoResponse) or not chunk:
                    break
                patience.restart()
                for one in stream.feed(chunk):
                    event = parse_stream_event(one, what)
                    # What a stream repeats after it was cut has been delivered already.
                    if event.position > after:
                        after = event.position
                        patience.reset_pauses()
                        yield YieldEvent(event)
                    if event.is_terminal:
                        return
            yield CloseStream()
            trouble = (
                chunk
                if isinstance(chunk, NoResponse)
                else NoResponse("the stream of events ended before the operation")
            )
            yield from self._pause_before_retry(trouble, patience, stream.retry, operation_id, hint)

    def _id_and_url(self, operation: Operation | str) -> tuple[str, str]:
        if isinstance(operation, Operation):
            return operation.id, self._service.status(operation.id, operation.url)
        return operation, self._service.status(operation)

    def _retry_budget(self, seconds: float | None) -> RetryBudget:
        return RetryBudget(seconds, clock=self._clock, jitter=self._jitter)

    def _post(self, url: str, content: bytes, headers: Mapping[str, str]) -> SendRequest:
        own = {**self._headers, **headers, "Accept": _JSON, "Content-Type": _JSON}
        return SendRequest(method="POST", url=url, headers=own, content=content, timeout=_RESPONSE_TIMEOUT)

    def _get(self, url: str, *, hold: int = 0) -> SendRequest:
        preference = {"Prefer": f"wait={hold}"} if hold else {}
        headers = {**self._headers, **preference, "Accept": _JSON}
        return SendRequest(method="GET", url=url, headers=headers, timeout=hold + _RESPONSE_TIMEOUT)

    def _stream(self, url: str, after: int) -> SendRequest:
        place = {"Last-Event-ID": str(after)} if after else {}
        headers = {**self._headers, **place, "Accept": EVENT_STREAM, "Cache-Control": "no-cache"}
        return SendRequest(method="GET", url=url, headers=headers, timeout=_STREAM_TIMEOUT, is_stream=True)

    def _exchange(
        self, send: SendRequest, patience: RetryBudget, operation_id: str, hint: str
    ) -> Flow[tuple[ServiceResponse, float]]:
        """Send until there is an answer that means something; that, and the seconds that its try took.

        Raises:
            ServiceUnavailable: there was none while patience lasted.
        """
        while True:
            begin = self._clock()
            silence = min(send.timeout, max(patience.remaining(), _MIN_TIMEOUT))
            outcome = yield msgspec.structs.replace(send, timeout=silence)
            if not is_transient(outcome):
                return outcome, self._clock() - begin
            yield from self._pause_before_retry(outcome, patience, retry_after(outcome), operation_id, hint)

    def _pause_before_retry(
        self,
        trouble: ServiceResponse | NoResponse,
        patience: RetryBudget,
        asked: float | None,
        operation_id: str,
        hint: str,
    ) -> Flow[None]:
        pause, left = patience.next_pause(asked), patience.remaining()
        if pause >= left:
            # Also where the service asks for more time than is left: sleeping would change nothing.
            what = f"{self._service.base} gave no usable answer in time (last: {describe_outcome(trouble)})"
            raise ServiceUnavailable(what, hint, operation_id=operation_id, retry_after=asked)
        if self._on_retry is not None:
            yield CallFunction(self._on_retry, (describe_outcome(trouble), pause))
        yield Sleep(pause)

    def _cancel_reason(self, operation: Operation) -> Flow[str]:
        # The monitor has no member for it. What was asked for is known without it, so one try is enough.
        outcome = yield self._get(f"{operation.url}/events")
        try:
            events = [] if isinstance(outcome, NoResponse) else parse_history(outcome, "")
        except OperationsError:
            return ""
        return next((event.data.reason for event in events if isinstance(event.data, Canceled)), "")


def _encode_json(value: Any) -> bytes:  # noqa: ANN401 - whatever becomes JSON
    if isinstance(value, msgspec.UnsetType):
        return b"{}"
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"the input can't be written as JSON: {error}") from error


def _wait_timeout(operation_id: str, seen: Operation | None, seconds: float, trouble: str) -> WaitTimeout:
    state = f"is {seen.status}" if seen else "was not seen"
    why = f" ({trouble})" if trouble else ""
    message = f"operation {operation_id} {state} after {seconds:g} s and goes on{why}: wait for it again, or cancel it"
    return WaitTimeout(message, operation_id=operation_id, operation=seen)
