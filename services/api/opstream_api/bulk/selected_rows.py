"""The operations that a bulk request selects, oldest first, as the index has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from opstream_api.lists.operation_list import OperationList
from opstream_index.filters.order import ListOrder
from opstream_index.filters.syntax import Term
from opstream_index.lists.items import ListRow
from opstream_index.lists.plan import ListScope, Place
from opstream_index.lists.reader import ListPage, ListQuery
from opstream_schemas.bulk.kinds import MAX_ITEMS

from .bulk_request import ORDER

SAMPLE: Final = 10
"""Operations that a dry run shows."""
COUNT_SECONDS: Final = 4.0
"""Seconds for which the index is asked how many operations a filter selects."""

_OLDEST_FIRST: Final = ListOrder(ORDER, is_descending=False)
_COUNT_PAGE: Final = 1_000
_PAGE: Final = 100


class SelectedCount(msgspec.Struct, frozen=True):
    """How many operations a filter selects."""

    count: int
    """`MAX_ITEMS` at most."""
    is_whole: bool
    """False if there are more, or the time was over before all were counted."""
    sample: list[ListRow]
    """The oldest."""
    lag: float
    """Seconds that the index is behind."""


class SelectedRows:
    """The operations that a filter selects, for one caller.

    Args:
        lists: reads the index.
        term: the tree of the filter.
        scope: whose operations.
        complete_until: the index must have all that was stored before: microseconds since 1970 (UTC).
    """

    def __init__(self, lists: OperationList, term: Term, scope: ListScope, *, complete_until: int = 0) -> None:
        self._lists = lists
        self._term = term
        self._scope = scope
        self._complete_until = complete_until

    async def count(self, clock: Callable[[], float], seconds: float = COUNT_SECONDS) -> SelectedCount:
        """Count them.

        Args:
            clock: returns monotonic seconds.
            seconds: after which no further page is read.

        Raises:
            ApiError: `IndexUnavailable`.
        """
        until = clock() + seconds
        sample: list[ListRow] = []
        count = 0
        after: Place | None = None
        while True:
            read = await self._lists.rows(self._query(_COUNT_PAGE, after), complete_until=self._complete_until)
            count += len(read.page.rows)
            sample += read.page.rows[: SAMPLE - len(sample)]
            after = read.page.next
            is_whole = after is None and count <= MAX_ITEMS
            if after is None or count >= MAX_ITEMS or clock() >= until:
                return SelectedCount(min(count, MAX_ITEMS), is_whole=is_whole, sample=sample, lag=read.lag)

    async def page(self, after: int | None) -> ListPage:
        """Return those behind a place. There may be none, and still a next page.

        Args:
            after: the place (`ListRow.place`); None for the first page.

        Raises:
            ApiError: `IndexUnavailable`.
        """
        query = self._query(_PAGE, None if after is None else Place(after))
        return (await self._lists.rows(query, complete_until=self._complete_until)).page

    def _query(self, size: int, after: Place | None) -> ListQuery:
        return ListQuery(term=self._term, order=_OLDEST_FIRST, scope=self._scope, size=size, after=after)
