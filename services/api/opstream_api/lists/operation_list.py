"""A page of a list: from the request and its caller to the answer, by way of the index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from opstream_api.access.principal import Principal
from opstream_api.access.scopes import READ
from opstream_api.errors import ApiError, forbidden, operation_not_found
from opstream_index.lists.cursor import Cursor, CursorRefused, CursorSigner
from opstream_index.lists.items import item_of
from opstream_index.lists.plan import ListScope
from opstream_index.lists.reader import ListPage, ListQuery, ListReader
from opstream_schemas.errors import ErrorCode

from .index_queue import IndexQueue, check_complete
from .list_request import ListRequest


class AnsweredList(msgspec.Struct, frozen=True):
    """The answer to a list or a count."""

    body: bytes
    """JSON."""
    lag: float
    """Seconds that the index is behind."""


class ReadRows(msgspec.Struct, frozen=True):
    """Rows of the index."""

    page: ListPage
    complete_until: int
    """The index has all that was stored before: microseconds since 1970 (UTC)."""
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
        self._queue = IndexQueue(readers)
        self._signer = signer
        self._now = now

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
        return await self._queue.run(lambda reader: self._answer(reader, request, scope, cursor, base))

    async def rows(self, query: ListQuery, *, complete_until: int = 0) -> ReadRows:
        """Return rows as the index has them.

        Args:
            query: which.
            complete_until: the index must have all that was stored before this time: microseconds since 1970 (UTC).

        Raises:
            ApiError: `IndexUnavailable`.
        """
        return await self._queue.run(lambda reader: self._read(reader, query, complete_until))

    def stop(self) -> None:
        """Take no more queries. Those that run end by themselves, within seconds."""
        self._queue.stop()

    def _cursor(self, request: ListRequest, scope: ListScope) -> Cursor | None:
        if not request.cursor:
            return None
        try:
            return self._signer.read(request.cursor, request.term, request.order, scope)
        except CursorRefused as error:
            raise ApiError(ErrorCode.INVALID_PARAMETER, str(error), target="cursor") from error

    def _answer(
        self, reader: ListReader, request: ListRequest, scope: ListScope, cursor: Cursor | None, base: str
    ) -> AnsweredList:
        """Read a page and encode it, in a thread: a thousand items would hold up other requests for milliseconds."""
        query = ListQuery(
            term=request.term,
            order=request.order,
            scope=scope,
            size=request.size,
            after=None if cursor is None else cursor.place,
        )
        read = self._read(reader, query, 0 if cursor is None else cursor.complete_until)
        body: dict[str, Any] = {"value": [item_of(row, request.selected) for row in read.page.rows]}
        if read.page.next is not None:
            began = read.complete_until if cursor is None else cursor.complete_until
            text = self._signer.write(Cursor(began, read.page.next), request.term, request.order, scope)
            body["nextLink"] = request.next_link(base, text)
        return AnsweredList(msgspec.json.encode(body), read.lag)

    def _read(self, reader: ListReader, query: ListQuery, complete_until: int) -> ReadRows:
        coverage = reader.coverage()
        check_complete(coverage, complete_until)
        page = reader.page(query, self._now())
        return ReadRows(page, coverage.complete_until, coverage.lag(self._now()))


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
        "this service has no index, so it can't list or count operations: its operator switches one on by --index, "
        "with the same URL for projector and api",
    )
