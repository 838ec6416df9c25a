"""The logic of each call, without I/O: a flow yields what its driver is to do (see `io_requests`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import msgspec

from opstream_schemas.events import Canceled
from opstream_schemas.operation.state import Status

from .errors import (
    OperationCanceled,
    OperationFailed,
    OperationsError,
    ServiceUnavailable,
    wait_timeout,
)
from .io_requests import (
    CallFunction,
    CloseStream,
    FetchToken,
    Flow,
    NoResponse,
    ReadStream,
    SendRequest,
    ServiceResponse,
    Sleep,
    YieldEvent,
)
from .models import Operation, Upload
from .responses import (
    EVENT_STREAM,
    decode_result,
    is_event_stream,
    no_stream_error,
    parse_follow_up,
    parse_history,
    parse_operation,
    parse_stream_event,
    response_error,
)
from .retries import RetryBudget, describe_outcome, is_transient, retry_after
from .sse import EventStreamParser
from .submits.content import encode_json, encode_labels, name_uploads
from .tokens import check_token
from .urls import ServiceUrls

OnChange: TypeAlias = Callable[[Operation], Any]
OnRetry: TypeAlias = Callable[[str, float], Any]
Token: TypeAlias = str | Callable[[], str]

_JSON: Final = "application/json"
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_OWN_HEADERS: Final = frozenset({"accept", "content-type", "operation-id"})
_RESPONSE_TIMEOUT: Final = 10.0
"""Seconds. The service responds to a submit within 5, even without its broker."""
_STREAM_TIMEOUT: Final = 40.0
"""Seconds. The service sends a comment every 15, so two in a row must be lost."""
_MIN_TIMEOUT: Final = 1.0
"""Seconds of the last try, however little time the call has left."""
_MAX_SERVER_WAIT: Final = 30
"""Seconds, for `Prefer: wait`: proxies give up on a silent request after 60 or 100."""
_SERVER_WAIT_MARGIN: Final = 0.5
"""Seconds before the call's timeout by which a delayed response must come."""
_POLL_INTERVAL: Final = 1.0
"""Seconds between polls, if a response has no `Retry-After`."""


class Flows:
    """The calls of a client.

    Args:
        urls: of the service.
        headers: sent with every request.
        clock: monotonic seconds.
        jitter: draws from [0, 1).
        new_id: makes operation ids.
        on_retry: called with the problem and the seconds until the next try; may be None.
        token: sent with every request; a function is called for it, and once more after a 401. None for none.
    """

    def __init__(
        self,
        urls: ServiceUrls,
        *,
        headers: Mapping[str, str],
        clock: Callable[[], float],
        jitter: Callable[[], float],
        new_id: Callable[[], str],
        on_retry: OnRetry | None,
        token: Token | None = None,
    ) -> None:
        self._fetch_token = token if callable(token) else None
        self._token = "" if token is None or callable(token) else check_token(token)
        self.urls = self._urls = urls
        self._headers = dict(headers)
        self._clock = clock
        self._jitter = jitter
        self.new_id = self._new_id = new_id
        self._on_retry = on_retry

    def submit(
        self,
        target: str,
        action_input: Any,  # noqa: ANN401 - any JSON
        *,
        operation_id: str | None,
        headers: Mapping[str, str] | None,
        labels: Mapping[str, str] | None = None,
        uploads: Sequence[Upload] = (),
        timeout: float | None,
    ) -> Flow[Operation]:
        """`OperationsClient.submit`."""
        own_id = uploads[0].operation_id if uploads else ""
        chosen_id = own_id or self._new_id() if operation_id is None else operation_id
        status_url = self._urls.status(chosen_id)
        own = {name: value for name, value in (headers or {}).items() if name.lower() not in _OWN_HEADERS}
        if labels:
            own["Operation-Label"] = encode_labels(labels)
        own.update(name_uploads(uploads, chosen_id))
        # Each try sends the same id and the same bytes, so trying again is safe.
        post = self._post(self._urls.action(target), encode_json(action_input), {**own, "Operation-Id": chosen_id})
        what = f"{target.removeprefix('/')} with operation id {chosen_id}"
        budget = self.retry_budget(timeout)
        response, _ = yield from self._exchange(
            post, budget, chosen_id, f"submit it again with operation_id={chosen_id!r}"
        )
        if response.status != HTTPStatus.ACCEPTED:
            raise response_error(response, what)
        operation = parse_operation(response, chosen_id, status_url, what)
        location = response.headers.get("Operation-Location")
        return Operation(self._urls.status(chosen_id, location), operation.monitor)

    def status(self, operation: Operation | str, *, timeout: float | None) -> Flow[Operation]:
        """`OperationsClient.status`."""
        operation_id, url = self.id_and_url(operation)
        response, _ = yield from self._exchange(
            self._get(url), self.retry_budget(timeout), operation_id, "ask again later"
        )
        return parse_operation(response, operation_id, url, f"operation {operation_id}")

    def cancel(self, operation: Operation | str, *, reason: str, timeout: float | None) -> Flow[Operation]:
        """`OperationsClient.cancel`."""
        operation_id, url = self.id_and_url(operation)
        post = self._post(f"{url}:cancel", encode_json({"reason": reason} if reason else {}), {})
        budget = self.retry_budget(timeout)
        response, _ = yield from self._exchange(
            post, budget, operation_id, "canceling twice is safe, so cancel it again"
        )
        return parse_operation(response, operation_id, url, f"canceling operation {operation_id}")

    def retry(self, operation: Operation | str, *, timeout: float | None) -> Flow[Operation]:
        """`OperationsClient.retry`."""
        operation_id, url = self.id_and_url(operation)
        what = f"the retry of operation {operation_id}"
        budget = self.retry_budget(timeout)
        response, _ = yield from self._exchange(
            self._post(f"{url}:retry", b"{}", {}), budget, operation_id, "retrying twice is safe, so retry it again"
        )
        if response.status != HTTPStatus.ACCEPTED:
            raise response_error(response, what)
        follow_up = parse_follow_up(response, what)
        location = response.headers.get("Operation-Location")
        return Operation(self._urls.status(follow_up.id, location), follow_up)

    def exchange(
        self,
        method: str,
        url: str,
        content: bytes = b"",
        *,
        hint: str,
        timeout: float | None,
        may_repeat: bool = True,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> Flow[ServiceResponse]:
        """Send a request, and return the response. With `may_repeat` it is sent again until that is not transient.

        Raises:
            ServiceUnavailable: there was none in time.
        """
        sent = self._post(url, content, headers) if content else self._get(url)
        budget = self.retry_budget(timeout)
        send = msgspec.structs.replace(sent, method=method)
        response, _ = yield from self._exchange(send, budget, "", hint, may_repeat=may_repeat)
        return response

    def wait(self, operation: Operation | str, *, timeout: float | None, on_change: OnChange | None) -> Flow[Operation]:
        """`OperationsClient.wait`."""
        operation_id, url = self.id_and_url(operation)
        seen = operation if isinstance(operation, Operation) else None
        budget = self.retry_budget(timeout)
        # The first request does not wait for the submit's `Retry-After`: the service delays its response.
        server_wait = _POLL_INTERVAL if on_change else _MAX_SERVER_WAIT
        while True:
            try:
                get = self._get(
                    url, server_wait=int(max(0.0, min(server_wait, budget.remaining() - _SERVER_WAIT_MARGIN)))
                )
                response, seconds = yield from self._exchange(get, budget, operation_id, "wait for it again")
            except ServiceUnavailable as error:
                # A caller that loops over short waits must not poll more often than the service asks.
                yield Sleep(budget.remaining())
                raise wait_timeout(operation_id, seen, budget.seconds, error.trouble) from error
            now = parse_operation(response, operation_id, url, f"operation {operation_id}")
            if on_change is not None and (seen is None or now.monitor != seen.monitor):
                yield CallFunction(on_change, (now,))
            seen = now
            if now.is_terminal:
                return now
            budget.reset_pauses()
            interval = retry_after(response) or _POLL_INTERVAL  # 0 would be a busy loop
            # With `on_change`, the caller wants each change and not only the end, as often as the service allows.
            server_wait = min(interval, _MAX_SERVER_WAIT) if on_change else _MAX_SERVER_WAIT
            if "Preference-Applied" in response.headers:
                interval -= seconds  # the service has delayed its response that long
            if interval > 0:
                yield Sleep(min(interval, budget.remaining()))
            if not budget.remaining():
                raise wait_timeout(operation_id, seen, budget.seconds, "")

    def result(
        self,
        operation: Operation | str,
        result_type: Any,  # noqa: ANN401 - any type that msgspec knows
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
        """`OperationsClient.events` without `follow`."""
        operation_id, url = self.id_and_url(operation)
        what = f"the history of operation {operation_id}"
        budget = self.retry_budget(timeout)
        response, _ = yield from self._exchange(self._get(f"{url}/events"), budget, operation_id, "ask again later")
        for event in parse_history(response, what):
            if event.position > after:
                yield YieldEvent(event)

    def follow(self, operation: Operation | str, *, after: int, timeout: float | None) -> Flow[None]:
        """`OperationsClient.events` with `follow`."""
        operation_id, url = self.id_and_url(operation)
        what = f"the history of operation {operation_id}"
        hint = "ask again with after= the position of the last one that you have"
        budget = self.retry_budget(timeout)
        while True:
            response, _ = yield from self._exchange(self._stream(f"{url}/events", after), budget, operation_id, hint)
            if response.status == HTTPStatus.NO_CONTENT:
                return
            if not is_event_stream(response):
                raise no_stream_error(response, what)
            stream = EventStreamParser()
            while True:
                chunk = yield ReadStream()
                if isinstance(chunk, NoResponse) or not chunk:
                    break
                budget.restart()
                for one in stream.feed(chunk):
                    event = parse_stream_event(one, what)
                    # A resumed stream may repeat events.
                    if event.position > after:
                        after = event.position
                        budget.reset_pauses()
                        yield YieldEvent(event)
                    if event.is_terminal:
                        return
            yield CloseStream()
            trouble = (
                chunk
                if isinstance(chunk, NoResponse)
                else NoResponse("the stream of events ended before the operation")
            )
            yield from self.pause_before_retry(trouble, budget, stream.retry, operation_id, hint)

    def send(self, send: SendRequest, budget: RetryBudget, operation_id: str, hint: str) -> Flow[ServiceResponse]:
        """Send a request of another flow, with the client's own headers and credentials unless it is foreign.

        Raises:
            ServiceUnavailable: no response was usable within the budget.
        """
        own = send if send.is_foreign else msgspec.structs.replace(send, headers={**self._headers, **send.headers})
        response, _ = yield from self._exchange(own, budget, operation_id, hint)
        return response

    def id_and_url(self, operation: Operation | str) -> tuple[str, str]:
        """The id and the status URL of an operation.

        Raises:
            InvalidRequest: the id is not valid.
        """
        if isinstance(operation, Operation):
            return operation.id, self._urls.status(operation.id, operation.url)
        return operation, self._urls.status(operation)

    def retry_budget(self, seconds: float | None) -> RetryBudget:
        """The time of one call, in seconds; None for no limit."""
        return RetryBudget(seconds, clock=self._clock, jitter=self._jitter)

    def _post(self, url: str, content: bytes, headers: Mapping[str, str]) -> SendRequest:
        own = {**self._headers, **headers, "Accept": _JSON, "Content-Type": _JSON}
        return SendRequest(method="POST", url=url, headers=own, content=content, timeout=_RESPONSE_TIMEOUT)

    def _get(self, url: str, *, server_wait: int = 0) -> SendRequest:
        preference = {"Prefer": f"wait={server_wait}"} if server_wait else {}
        headers = {**self._headers, **preference, "Accept": _JSON}
        return SendRequest(method="GET", url=url, headers=headers, timeout=server_wait + _RESPONSE_TIMEOUT)

    def _stream(self, url: str, after: int) -> SendRequest:
        place = {"Last-Event-ID": str(after)} if after else {}
        headers = {**self._headers, **place, "Accept": EVENT_STREAM, "Cache-Control": "no-cache"}
        return SendRequest(method="GET", url=url, headers=headers, timeout=_STREAM_TIMEOUT, is_stream=True)

    def _exchange(
        self, send: SendRequest, budget: RetryBudget, operation_id: str, hint: str, *, may_repeat: bool = True
    ) -> Flow[tuple[ServiceResponse, float]]:
        """Send until a response is not transient; return it and the seconds of its try.

        Raises:
            ServiceUnavailable: there was none within the budget.
        """
        may_renew = self._fetch_token is not None
        while True:
            sent = yield from self._with_token(send)
            begin = self._clock()
            response_timeout = min(send.timeout, max(budget.remaining(), _MIN_TIMEOUT))
            outcome = yield msgspec.structs.replace(sent, timeout=response_timeout)
            if may_renew and isinstance(outcome, ServiceResponse) and outcome.status == HTTPStatus.UNAUTHORIZED:
                may_renew = False
                self._forget_token(sent)
                continue
            if not is_transient(outcome):
                return outcome, self._clock() - begin
            if not may_repeat:
                what = f"{self._urls.base} gave no usable response ({describe_outcome(outcome)})"
                raise ServiceUnavailable(what, hint, operation_id=operation_id, retry_after=retry_after(outcome))
            yield from self.pause_before_retry(outcome, budget, retry_after(outcome), operation_id, hint)

    def _with_token(self, send: SendRequest) -> Flow[SendRequest]:
        """Return a request with the token. All but foreign ones go to the service's own origin (`ServiceUrls`)."""
        if send.is_foreign:
            return send
        if not self._token and self._fetch_token is not None:
            self._token = check_token((yield FetchToken(self._fetch_token)))
        if not self._token:
            return send
        return msgspec.structs.replace(send, headers={**send.headers, "Authorization": f"Bearer {self._token}"})

    def _forget_token(self, sent: SendRequest) -> None:
        """Forget the token of a request that was refused, unless another call has a newer one already."""
        if sent.headers.get("Authorization") == f"Bearer {self._token}":
            self._token = ""

    def pause_before_retry(
        self,
        trouble: ServiceResponse | NoResponse,
        budget: RetryBudget,
        asked: float | None,
        operation_id: str,
        hint: str,
    ) -> Flow[None]:
        """Wait before another try, as long as was asked for and a little more.

        Raises:
            ServiceUnavailable: no time is left for it.
        """
        pause, left = budget.next_pause(asked), budget.remaining()
        if pause >= left:
            # Also if the service asks for more time than is left: sleeping would not help.
            what = f"{self._urls.base} gave no usable response in time (last: {describe_outcome(trouble)})"
            raise ServiceUnavailable(what, hint, operation_id=operation_id, retry_after=asked)
        if self._on_retry is not None:
            yield CallFunction(self._on_retry, (describe_outcome(trouble), pause))
        yield Sleep(pause)

    def _cancel_reason(self, operation: Operation) -> Flow[str]:
        # The status has no member for it. The outcome is known without it, so one try is enough.
        outcome = yield (yield from self._with_token(self._get(f"{operation.url}/events")))
        try:
            events = [] if isinstance(outcome, NoResponse) else parse_history(outcome, "")
        except OperationsError:
            return ""
        return next((event.data.reason for event in events if isinstance(event.data, Canceled)), "")
