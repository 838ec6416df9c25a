"""The query of a count: which parameters it has, and what they say. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from opstream_api.errors import ApiError
from opstream_index.counts.group_field import DEFAULT_TOP, GroupField, parse_group_field, parse_top
from opstream_index.counts.reader import order_of
from opstream_index.filters.checks import check_indexed, parse_filter
from opstream_index.filters.errors import FilterRefused
from opstream_index.filters.syntax import Term
from opstream_schemas.errors import ErrorCode

from .list_request import parse_parameters

COUNT_PARAMETERS: Final = ("filter", "by", "top", "api-version")


class CountRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is counted."""

    term: Term | None = None
    """The checked filter; None for every operation."""
    group_field: GroupField | None = None
    """By what; None for one number."""
    top: int = DEFAULT_TOP


def parse_count_request(query: bytes) -> CountRequest:
    """Return what the query of a count asks for.

    Raises:
        ApiError: `InvalidParameter`, with the parameter as target; the message says what is allowed.
    """
    given = parse_parameters(query, COUNT_PARAMETERS, "a count")
    try:
        term = parse_filter(given["filter"]) if "filter" in given else None
        check_indexed(term, order_of(term).field)
        group_field = parse_group_field(given["by"]) if "by" in given else None
        top = parse_top(given["top"]) if "top" in given else DEFAULT_TOP
    except FilterRefused as error:
        raise ApiError(ErrorCode.INVALID_PARAMETER, str(error), target=error.parameter) from error
    return CountRequest(term=term, group_field=group_field, top=top)
