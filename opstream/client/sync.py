# ruff: noqa: ANN401 - inputs and results are any JSON
"""The synchronous client. `aio` has the one for asyncio; `flows` has the logic of both."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Self, TypeVar, overload

import httpx
import msgspec

from .drivers.sync_driver import drive, iterate
from .erasure.erase_flow import EraseFlow
from .files.download_flow import DownloadFlow
from .files.upload_flow import UploadFlow
from .files.upload_source import OnProgress
from .flows import OnChange, OnRetry, Token
from .io_requests import Flow
from .lists.flows import ListFlows
from .models import BulkPreview, Operation, OperationCount, OperationEvent, OperationPage, Upload
from .schedules.calls import ScheduleCalls
from .signals.signal_flow import SignalFlow, SignalState
from .transport import CONNECTION_LIMITS, make_flows

T = TypeVar("T")


class OperationsClient:
    """Submits actions to an opstream service and follows their operations.

        with OperationsClient("http://127.0.0.1:8080") as client:
            operation = client.submit("book/42:upload-start", {"title": "Moby Dick", "files": []})
            started = client.result(operation, UploadStarted)

    Each call tries until it gets a response or its `timeout` is over. That is safe, since every submit carries an
    operation id. Threads may share a client. It does not follow redirects.

    Args:
        url: of the service: `https://HOST` or `https://HOST/PATH`; with `USER:PASSWORD@` for Basic authentication.
        headers: sent with every request, e.g. `Authorization`.
        http: an httpx client to send with, e.g. one with its own certificates or proxies; it stays open.
        on_retry: called before each further try, with the problem and the seconds until that try.
        token: credentials for `Authorization: Bearer`, sent to this service only: a text, or a function that returns
            one, such as `TokenCommand`; it is called again once after a 401.

    Raises:
        InvalidRequest: the URL or the token is not valid.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        http: httpx.Client | None = None,
        on_retry: OnRetry | None = None,
        token: Token | None = None,
    ) -> None:
        self._flows = make_flows(url, headers, on_retry, token)
        self._is_own = http is None
        self._http = httpx.Client(limits=CONNECTION_LIMITS) if http is None else http

    def submit(
        self,
        target: str,
        action_input: Any = msgspec.UNSET,
        *,
        operation_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        uploads: Sequence[Upload] = (),
        timeout: float | None = 60.0,
    ) -> Operation:
        """Submit an action.

        Args:
            target: `resource/id:action` or `resource:action`; the id is not percent-encoded.
            action_input: anything that msgspec encodes as JSON: a dict, a Struct, a dataclass; `msgspec.Raw` for JSON
                text. By default an empty object.
            operation_id: an id of your own (`[A-Za-z0-9_-]{1,64}`); stored before the call, it prevents a second
                operation even after a crash. By default a new UUIDv7.
            headers: added to this request, e.g. `traceparent`.
            labels: words of your own about the operation, 16 at most, by which lists find it, e.g. `{"team": "press"}`.
            uploads: files for it, as `upload` gives them; the operation id is theirs.
            timeout: seconds until it must be recorded; None for no limit.

        Returns:
            The operation. It may have ended already if the same request was submitted before.

        Raises:
            InvalidRequest: the request can't be sent.
            RequestRefused: the request is wrong; nothing was recorded.
            ServiceUnavailable: it may have been recorded or not. Submit it again with the error's `operation_id`.
            UnexpectedAnswer: the response is not opstream's, or is broken.
        """
        return self._drive(
            self._flows.submit(
                target,
                action_input,
                operation_id=operation_id,
                headers=headers,
                labels=labels,
                uploads=uploads,
                timeout=timeout,
            )
        )

    def upload(
        self,
        source: str | PathLike[str] | bytes,
        *,
        media_type: str = "application/octet-stream",
        name: str | None = None,
        operation_id: str | None = None,
        timeout: float | None = 60.0,
        on_progress: OnProgress | None = None,
    ) -> Upload:
        """Upload a file, for `submit(…, uploads=[…])` within 20 hours. It is read in pieces, and again after a break.

        Args:
            source: the path of a regular file, or bytes.
            media_type: what the handler is told of it.
            name: under which the handler finds it; by default the file's own. Bytes need one.
            operation_id: of the operation that it is for; for a second file that of the first `Upload`. By default new.
            timeout: seconds without progress; None for no limit.
            on_progress: called with the bytes sent, and all.

        Raises:
            InvalidRequest: it can't be read, or is larger than the service takes.
            RequestRefused: `OperationIdReused`: the operation was submitted already; `Forbidden`.
            ServiceUnavailable, UnexpectedAnswer: there was no usable response. Uploading twice is safe.
        """
        flow = UploadFlow(self._flows).upload(
            source,
            name=name,
            media_type=media_type,
            operation_id=operation_id,
            timeout=timeout,
            on_progress=on_progress,
        )
        return self._drive(flow)

    def download(
        self,
        operation: Operation | str,
        name: str,
        path: str | PathLike[str],
        *,
        timeout: float | None = 60.0,
        on_progress: OnProgress | None = None,
    ) -> Path:
        """Download a file of an operation, an attachment or an upload; return its path. Its hash is compared.

        Args:
            operation: the operation or its id.
            name: of the file.
            path: where it comes to lie, once it is whole; a file that is there is replaced. A folder takes `name`.
            timeout: seconds without progress; None for no limit. A download that breaks is resumed.
            on_progress: called with the bytes written, and all.

        Raises:
            InvalidRequest: the operation has no such file, or it can't be written there.
            RequestRefused: `OperationNotFound`.
            ServiceUnavailable, UnexpectedAnswer: there was no usable response, or other bytes.
        """
        flow = DownloadFlow(self._flows).download(operation, name, path, timeout=timeout, on_progress=on_progress)
        return self._drive(flow)

    def erase(self, operation: Operation | str, *, reason: str = "", timeout: float | None = 60.0) -> None:
        """Make a confidential operation unreadable for good, everywhere (docs/confidential.md).

        Args:
            operation: the operation or its id. It has ended.
            reason: for the record; write nothing personal into it.
            timeout: seconds until it must be done; None for no limit.

        Raises:
            RequestRefused: `OperationOpen`: cancel it first; `NotConfidential`; `OperationNotFound`; `Forbidden`.
            ServiceUnavailable, UnexpectedAnswer: there was no usable response. Erasing twice is safe.
        """
        self._drive(EraseFlow(self._flows).erase(operation, reason=reason, timeout=timeout))

    def status(self, operation: Operation | str, *, timeout: float | None = 60.0) -> Operation:
        """The operation's current state.

        Args:
            operation: the operation or its id.
            timeout: seconds until there must be a response; None for no limit.

        Raises:
            RequestRefused: `OperationNotFound`: it does not exist, or its retention is over.
            ServiceUnavailable, UnexpectedAnswer: there was no usable response.
        """
        return self._drive(self._flows.status(operation, timeout=timeout))

    def page(self, query: str = "", *, timeout: float | None = 60.0) -> OperationPage:
        """A page of a list of operations (docs/list.md).

        Args:
            query: percent-encoded, as `urllib.parse.urlencode({"filter": "status eq 'Failed'"})` writes it, or the
                `next_query` of the page before; empty for all operations.
            timeout: seconds until there must be a response; None for no limit.

        Raises:
            RequestRefused: `InvalidParameter`: the query is wrong; `IndexOff`: the service has no index.
            ServiceUnavailable, UnexpectedAnswer: there was no usable response.
        """
        return self._drive(ListFlows(self._flows).page(query, timeout=timeout))

    def count(self, query: str = "", *, timeout: float | None = 60.0) -> OperationCount:
        """How many operations there are (docs/list.md).

        Args:
            query: percent-encoded, as `urllib.parse.urlencode({"filter": "status eq 'Failed'", "by": "kind"})` writes
                it; empty for all operations.
            timeout: seconds until there must be a response; None for no limit.

        Raises:
            RequestRefused, ServiceUnavailable, UnexpectedAnswer: as `page`.
        """
        return self._drive(ListFlows(self._flows).count(query, timeout=timeout))

    @property
    def schedules(self) -> ScheduleCalls:
        """What can be done with schedules."""
        return ScheduleCalls(self._flows, self._drive)

    def wait(
        self, operation: Operation | str, *, timeout: float | None = None, on_change: OnChange | None = None
    ) -> Operation:
        """Wait until the operation has ended, with any outcome.

        Asks the service to delay its response (`Prefer: wait`), and otherwise polls as its `Retry-After` says.
        Tries again while the service is unavailable.

        Args:
            operation: the operation or its id.
            timeout: seconds; None for no limit.
            on_change: called with the operation each time its state has changed.

        Raises:
            WaitTimeout: the operation has not ended; it goes on.
            RequestRefused: `OperationNotFound`.
            UnexpectedAnswer: the response is not opstream's, or is broken.
        """
        return self._drive(self._flows.wait(operation, timeout=timeout, on_change=on_change))

    @overload
    def result(
        self,
        operation: Operation | str,
        result_type: type[T],
        *,
        timeout: float | None = None,
        on_change: OnChange | None = None,
    ) -> T: ...
    @overload
    def result(
        self,
        operation: Operation | str,
        result_type: Any = Any,
        *,
        timeout: float | None = None,
        on_change: OnChange | None = None,
    ) -> Any: ...
    def result(
        self,
        operation: Operation | str,
        result_type: Any = Any,
        *,
        timeout: float | None = None,
        on_change: OnChange | None = None,
    ) -> Any:
        """Wait until the operation has succeeded, and return its result.

        Args:
            operation: the operation or its id.
            result_type: any type that msgspec can decode into; by default plain JSON values.
            timeout: seconds; None for no limit.
            on_change: as for `wait`.

        Raises:
            OperationFailed, OperationCanceled: the operation did not succeed.
            WaitTimeout: the operation has not ended; it goes on.
            RequestRefused: `OperationNotFound`.
            UnexpectedAnswer: as for `wait`, or the result is not of that type.
        """
        return self._drive(self._flows.result(operation, result_type, timeout=timeout, on_change=on_change))

    def cancel(self, operation: Operation | str, *, reason: str = "", timeout: float | None = 60.0) -> Operation:
        """Request that the operation stops. A running one becomes Canceled only when it has stopped: see `wait`.

        Args:
            operation: the operation or its id.
            reason: for the operation's history.
            timeout: seconds until the request must be recorded; None for no limit.

        Raises:
            RequestRefused: `OperationFinished`: the operation has succeeded or failed; `OperationNotFound`.
            ServiceUnavailable, UnexpectedAnswer: there was no usable response. Canceling twice is safe.
        """
        return self._drive(self._flows.cancel(operation, reason=reason, timeout=timeout))

    def signal(
        self,
        operation: Operation | str,
        name: str,
        payload: Any = None,
        *,
        request_id: str | None = None,
        timeout: float | None = 60.0,
    ) -> SignalState:
        """Send a signal; return what became of it. The same `request_id` is the same signal (docs/signals.md).

        Raises:
            RequestRefused: `InvalidInput`, `SignalTooLate`, `OperationFinished`, …
            ServiceUnavailable, UnexpectedAnswer: there was no usable response.
        """
        return self._drive(
            SignalFlow(self._flows).send(operation, name, payload, request_id=request_id, timeout=timeout)
        )

    def retry(self, operation: Operation | str, *, timeout: float | None = 60.0) -> Operation:
        """Request that an operation that failed or was canceled is done again, with the same input.

        Args:
            operation: the operation or its id.
            timeout: seconds until the request must be recorded; None for no limit.

        Returns:
            Its follow-up, a new operation of this caller. Each operation has one, so a repeated call returns the same.

        Raises:
            RequestRefused: `OperationNotRetriable`: it has not ended, or has succeeded; `OperationNotFound`;
                `UnknownAction`; `InvalidInput`: the action takes its input no more.
            ServiceUnavailable, UnexpectedAnswer: there was no usable response. Retrying twice is safe.
        """
        return self._drive(self._flows.retry(operation, timeout=timeout))

    def bulk(
        self, act: str, query: str, *, reason: str = "", operation_id: str | None = None, timeout: float | None = 60.0
    ) -> Operation:
        """Request that all operations are retried, or canceled, that a filter selects. The service needs an index.

        Args:
            act: `retry` or `cancel`.
            query: percent-encoded: `filter`, and if you like `perSecond`, as of `urllib.parse.urlencode`.
            reason: of a cancel.
            operation_id: as of `submit`.
            timeout: seconds until the request must be recorded; None for no limit.

        Returns:
            The bulk operation, which does it: see `wait`.

        Raises:
            RequestRefused: `IndexOff`, `InvalidParameter`.
            ServiceUnavailable, UnexpectedAnswer: there was no usable response.
        """
        flow = ListFlows(self._flows).bulk(act, query, reason=reason, operation_id=operation_id, timeout=timeout)
        return self._drive(flow)

    def preview(self, act: str, query: str, *, timeout: float | None = 60.0) -> BulkPreview:
        """What `bulk` would select: a dry run, which begins nothing. Arguments and errors are those of `bulk`."""
        return self._drive(ListFlows(self._flows).preview(act, query, timeout=timeout))

    def events(
        self, operation: Operation | str, *, follow: bool = False, after: int = 0, timeout: float | None = 60.0
    ) -> Generator[OperationEvent, None, None]:
        """The operation's events, oldest first, each once.

        Args:
            operation: the operation or its id.
            follow: continue until the operation has ended; a broken stream is resumed after the last event.
            after: skip the events up to this position.
            timeout: seconds without data from the service until the call fails; None for no limit.

        Raises:
            RequestRefused: `OperationNotFound`.
            ServiceUnavailable, UnexpectedAnswer: there was no usable response.
        """
        flow = self._flows.follow if follow else self._flows.history
        return iterate(self._http, flow(operation, after=after, timeout=timeout))

    def close(self) -> None:
        """Close the connections."""
        if self._is_own:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drive(self, flow: Flow[T]) -> T:
        return drive(self._http, flow)
