"""A count: from the request and its caller to the answer, by way of the index.

Counts have a reader and a thread of their own: a count may take seconds, for which no list should wait. Those about the
operations of one caller wait for each other, so that a caller who asks for many does not keep others waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from opstream_api.errors import ApiError
from opstream_index.counts.reader import CountQuery, CountReader, CountResult
from opstream_index.counts.tally import MAX_GROUPS, Group, TooManyGroups
from opstream_index.lists.plan import ListScope
from opstream_index.operation_row import time_of
from opstream_schemas.errors import ErrorCode

from .count_request import CountRequest
from .index_queue import IndexQueue, check_complete
from .operation_list import AnsweredList


class OperationCounts:
    """Answers counts.

    Args:
        reader: of the index.
        now: microseconds since 1970 (UTC).
    """

    def __init__(self, reader: CountReader, *, now: Callable[[], int]) -> None:
        self._queue = IndexQueue([reader])
        self._now = now

    async def count(self, request: CountRequest, scope: ListScope) -> AnsweredList:
        """Return a count.

        Args:
            request: what is counted.
            scope: whose operations count.

        Raises:
            ApiError: `InvalidParameter`: the field by which it is counted has too many values; `IndexUnavailable`.
        """
        return await self._queue.run_in_turn(scope, lambda reader: self._answer(reader, request, scope))

    def stop(self) -> None:
        """Take no more questions. Those that run end by themselves, within seconds."""
        self._queue.stop()

    def _answer(self, reader: CountReader, request: CountRequest, scope: ListScope) -> AnsweredList:
        coverage = reader.coverage()
        check_complete(coverage)
        query = CountQuery(term=request.term, group_field=request.group_field, scope=scope)
        try:
            count = reader.count(query, self._now())
        except TooManyGroups as error:
            message = f"the counted operations have more than {MAX_GROUPS} different values of it: narrow the filter"
            raise ApiError(ErrorCode.INVALID_PARAMETER, message, target="by") from error
        return AnsweredList(msgspec.json.encode(answer_of(count, request)), coverage.lag(self._now()))


def answer_of(count: CountResult, request: CountRequest) -> dict[str, Any]:
    """Return the body of an answer.

    Args:
        count: what was counted.
        request: what was asked for.
    """
    body = _shown(count.whole)
    if request.group_field is not None:
        groups = [
            {**({} if group.key is None else {"key": group.key}), **_shown(group)}
            for group in count.groups[: request.top]
        ]
        body |= {"by": request.group_field.field, "groups": len(count.groups), "value": groups}
    if count.counted_from is not None:
        body["incomplete"] = {"field": count.order.field, "from": time_of(count.counted_from)}
    return body


def _shown(group: Group) -> dict[str, Any]:
    shown: dict[str, Any] = {"count": group.number, "statuses": group.statuses}
    took = group.durations
    if took is not None:
        seconds = {"p50": took.median, "p95": took.p95, "max": took.longest}
        rounded = {name: round(value, 6) for name, value in seconds.items()}
        shown["duration"] = {"count": took.number, **rounded}
    return shown
