"""A bulk request: the parameters of its URL, what they say, and which operations they select. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from opstream_api.errors import ApiError
from opstream_api.lists.list_request import parse_parameters
from opstream_index.filters.checks import check_indexed, parse_filter
from opstream_index.filters.errors import FilterRefused
from opstream_index.filters.syntax import Conjunction, FieldCondition, Negation, Operator, Term
from opstream_schemas.bulk.kinds import BULK_KINDS, DEFAULT_RATE, MAX_RATE, BulkAct
from opstream_schemas.errors import ErrorCode

FILTER: Final = "filter"
DRY_RUN: Final = "dryRun"
RATE: Final = "perSecond"
PARAMETERS: Final = (FILTER, DRY_RUN, RATE, "api-version")
ORDER: Final = "createdAt"
"""The order in which operations are done."""

_STATUSES: Final[Mapping[BulkAct, tuple[str, ...]]] = {
    BulkAct.RETRY: ("Failed", "Canceled"),
    BulkAct.CANCEL: ("NotStarted", "Running"),
}
"""Those of operations to which the act can be done."""
_FLAGS: Final = {"true": True, "false": False}


class BulkRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a bulk request asks for."""

    act: BulkAct
    filter: str
    """As it was sent."""
    is_dry_run: bool = False
    per_second: int = DEFAULT_RATE


def parse_bulk_request(act: BulkAct, query: bytes) -> BulkRequest:
    """Return what the query of a bulk request asks for.

    Raises:
        ApiError: `InvalidParameter`, with the parameter as target; the message says what is allowed.
    """
    given = parse_parameters(query, PARAMETERS, "a bulk request")
    if not given.get(FILTER, "").strip():
        message = f"name the operations by {FILTER}, e.g. {FILTER}=kind eq 'book:upload-start'"
        raise ApiError(ErrorCode.INVALID_PARAMETER, message, target=FILTER)
    selected(act, given[FILTER])
    flag, rate = given.get(DRY_RUN, "false"), given.get(RATE, str(DEFAULT_RATE))
    if flag not in _FLAGS:
        raise ApiError(ErrorCode.INVALID_PARAMETER, f"{DRY_RUN} must be true or false", target=DRY_RUN)
    if not (rate.isascii() and rate.isdigit() and len(rate) <= len(str(MAX_RATE)) and 1 <= int(rate) <= MAX_RATE):
        message = f"{RATE} must be a whole number from 1 to {MAX_RATE}"
        raise ApiError(ErrorCode.INVALID_PARAMETER, message, target=RATE)
    return BulkRequest(act=act, filter=given[FILTER], is_dry_run=_FLAGS[flag], per_second=int(rate))


def selected(act: BulkAct, text: str, *, before: int | None = None) -> Term:
    """Return the tree of a filter, narrowed to the operations to which the act can be done.

    Bulk operations are never selected. With `before`, nor is what an act makes itself: follow-ups that fail meanwhile.

    Args:
        act: what is to be done.
        text: the filter as it was sent.
        before: only operations that were requested before: microseconds since 1970 (UTC); None for all.

    Raises:
        ApiError: `InvalidParameter`.
    """
    try:
        term = parse_filter(text)
        narrowed: list[Term] = [
            term,
            FieldCondition("status", Operator.IN, _STATUSES[act]),
            Negation(FieldCondition("kind", Operator.IN, tuple(map(str, BULK_KINDS)))),
        ]
        if before is not None:
            narrowed.append(FieldCondition(ORDER, Operator.LT, (before,)))
        found = Conjunction(tuple(narrowed))
        check_indexed(found, ORDER)
    except FilterRefused as error:
        raise ApiError(ErrorCode.INVALID_PARAMETER, str(error), target=FILTER) from error
    return found
