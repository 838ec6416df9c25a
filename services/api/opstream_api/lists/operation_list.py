"""A page of a list: from the request and its caller to the answer, by way of the index.

The index blocks, so it is asked in a few threads of its own; what waits for them is bounded, and so is each query.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec

from opstream_api.access.principal import Principal
from opstream_api.access.scopes import READ
from opstream_api.errors import ApiError, forbidden, operation_not_found
from opstream_index.errors import IndexFault, QueryTimeout
from opstream_index.lists.cursor import Cursor, CursorRefused, CursorSigner
from opstream_index.lists.items import item_of
from opstream_index.lists.plan import ListScope
from opstream_index.lists.reader import ListQuery, ListReader
from opstream_journal.outage_log import OutageLog
from opstream_schemas.errors import ErrorCode

from .list_request import ListRequest

logger = logging.getLogger(__name__)

MAX_WAITING: Final = 64
"""Lists that wait for the index in one process. A further one is answered 503."""

_OUTAGE: Final = OutageLog(logger, "lists are answered with 503", "the index answers again")


class AnsweredList(msgspec.Struct, frozen=True):
    """The answer to a list."""

    body: bytes
    """JSON."""
    lag: float
    """Seconds that the index is behind."""


class OperationList:
    """Answers lists.

    Args:
        readers: of the index, each for one query at a time.
        signer: of cursors.
        now: microseconds since 1970 (UTC).
    """

    def __init__(self, readers: Sequence[ListReader], *, signer: CursorSigner, now: Callable[[], int]) -> None:
        self._readers = list(readers)
        self._signer = signer
        self._now = now
        self._threads = ThreadPoolExecutor(len(readers), thread_name_prefix="index")
        self._waiting = 0

    async def page(self, request: ListRequest, scope: ListScope, base: str) -> AnsweredList:
        """Return a page.

        Args:
            request: what is asked for.
            scope: whose operations may be shown.
            base: the service's own URL, for the link to the next page.

        Raises:
            ApiError: `InvalidParameter`: the cursor is not one of this list; `IndexUnavailable`.
        """
        cursor = self._cursor(request, scope)
        if self._waiting >= MAX_WAITING:
            raise _unavailable("more lists wait for the index than it can answer: try again")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            answered = await loop.run_in_executor(self._threads, self._answer, request, scope, cursor, base)
        except QueryTimeout as error:
            raise _unavailable("the index took too long: ask for less, as by a range of createdAt") from error
        except IndexFault as error:
            _OUTAGE.failed(error)
            raise _unavailable("the index can't be read now: try again") from error
        finally:
            self._waiting -= 1
        _OUTAGE.recovered()
        return answered

    def stop(self) -> None:
        """Take no more queries. Those that run end by themselves, within seconds."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _cursor(self, request: ListRequest, scope: ListScope) -> Cursor | None:
        if not request.cursor:
            return None
        try:
            return self._signer.read(request.cursor, request.term, request.order, scope)
        except CursorRefused as error:
            raise ApiError(ErrorCode.INVALID_PARAMETER, str(error), target="cursor") from error

    def _answer(self, request: ListRequest, scope: ListScope, cursor: Cursor | None, base: str) -> AnsweredList:
        """Read a page and encode it, in a thread: a thousand items would hold up other requests for milliseconds."""
        query = ListQuery(
            term=request.term,
            order=request.order,
            scope=scope,
            size=request.size,
            after=None if cursor is None else cursor.place,
        )
        reader = self._readers.pop()
        try:
            coverage = reader.coverage()
            began = coverage.complete_until if cursor is None else cursor.complete_until
            if not coverage.is_complete or coverage.complete_until < began:
                # What a page would lack, no later page would have.
                raise _unavailable("the index is being made, and is not complete yet: try again")
            page = reader.page(query, self._now())
        finally:
            self._readers.append(reader)
        body: dict[str, Any] = {"value": [item_of(row, request.selected) for row in page.rows]}
        if page.next is not None:
            text = self._signer.write(Cursor(began, page.next), request.term, request.order, scope)
            body["nextLink"] = request.next_link(base, text)
        return AnsweredList(msgspec.json.encode(body), coverage.lag(self._now()))


def list_scope(principal: Principal | None) -> ListScope:
    """Return whose operations a principal may list; None is any caller of a service that asks for no credentials.

    Raises:
        ApiError: `Forbidden`.
    """
    if principal is None:
        return ListScope()
    if not principal.subject:  # a status token, which opens one operation; the door lets none pass here
        raise operation_not_found()
    if not principal.scopes.reads:
        raise forbidden(READ, "list operations")
    return ListScope(principal.tenant, None if principal.scopes.reads_all else principal.subject)


def index_off() -> ApiError:
    """The error for a list of a service without an index."""
    return ApiError(
        ErrorCode.INDEX_OFF,
        "this service has no index, so it can't list operations: its operator switches one on by --index, with the "
        "same URL for projector and api",
    )


def _unavailable(message: str) -> ApiError:
    return ApiError(ErrorCode.INDEX_UNAVAILABLE, message)
