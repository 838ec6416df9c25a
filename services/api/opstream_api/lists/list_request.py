"""The query of a list: which parameters it has, what they say, and the URL of the next page. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode

import msgspec

from opstream_api.errors import ApiError
from opstream_index.filters.checks import check_indexed, parse_filter
from opstream_index.filters.errors import FilterRefused
from opstream_index.filters.fields import MEMBERS
from opstream_index.filters.order import (
    DEFAULT_PAGE_SIZE,
    ListOrder,
    parse_order,
    parse_page_size,
    parse_selection,
)
from opstream_index.filters.syntax import Term
from opstream_schemas.errors import ErrorCode

CURSOR: Final = "cursor"
PARAMETERS: Final = ("filter", "orderby", "maxpagesize", "select", CURSOR, "api-version")
MAX_QUERY: Final = 6_144
"""Bytes of the parameters in a URL, as `nextLink` writes them: with a cursor they have to fit into one."""

_PLAIN: Final = "'(),:/"


class ListRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a list is asked for."""

    term: Term | None = None
    """The checked filter; None for every operation."""
    order: ListOrder = ListOrder()
    size: int = DEFAULT_PAGE_SIZE
    selected: tuple[str, ...] = MEMBERS
    cursor: str = ""
    """As a `nextLink` has it; empty for the first page."""
    parameters: tuple[tuple[str, str], ...] = ()
    """All but the cursor, as they were sent."""

    def next_link(self, base: str, cursor: str) -> str:
        """Return the URL of the next page.

        Args:
            base: the service's own URL, without a slash at the end.
            cursor: of the next page.
        """
        return f"{base}/status?{_encoded((*self.parameters, (CURSOR, cursor)))}"


def parse_list_request(query: bytes) -> ListRequest:
    """Return what the query of a list asks for.

    Raises:
        ApiError: `InvalidParameter`, with the parameter as target; the message says what is allowed.
    """
    given = parse_parameters(query, PARAMETERS, "a list")
    try:
        request = _parsed(given)
        check_indexed(request.term, request.order.field)
    except FilterRefused as error:
        raise ApiError(ErrorCode.INVALID_PARAMETER, str(error), target=error.parameter) from error
    return request


def _parsed(given: dict[str, str]) -> ListRequest:
    return ListRequest(
        term=parse_filter(given["filter"]) if "filter" in given else None,
        order=parse_order(given["orderby"]) if "orderby" in given else ListOrder(),
        size=parse_page_size(given["maxpagesize"]) if "maxpagesize" in given else DEFAULT_PAGE_SIZE,
        selected=parse_selection(given["select"]) if "select" in given else MEMBERS,
        cursor=given.get(CURSOR, ""),
        parameters=tuple((name, value) for name, value in given.items() if name != CURSOR),
    )


def parse_parameters(query: bytes, known: Sequence[str], what: str) -> dict[str, str]:
    """Return the parameters of a query, each once.

    Args:
        query: percent-encoded.
        known: the names of those that there may be.
        what: takes them, for messages.

    Raises:
        ApiError: `InvalidParameter`.
    """
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="strict", max_num_fields=len(known))
    except ValueError as error:
        message = f"the query of {what} has at most {len(known)} parameters, percent-encoded UTF-8"
        raise ApiError(ErrorCode.INVALID_PARAMETER, message) from error
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            message = f"there is no query parameter {name!r}; {what} takes: {', '.join(known)}"
            raise ApiError(ErrorCode.INVALID_PARAMETER, message, target=name)
        if name in found:
            raise ApiError(ErrorCode.INVALID_PARAMETER, f"the parameter {name} was sent twice", target=name)
        found[name] = value
    if len(_encoded((name, value) for name, value in found.items() if name != CURSOR)) > MAX_QUERY:
        message = f"the parameters have more than {MAX_QUERY} bytes in a URL: ask for less at once"
        raise ApiError(ErrorCode.INVALID_PARAMETER, message, target="filter")
    return found


def _encoded(pairs: Iterable[tuple[str, str]]) -> str:
    return urlencode(tuple(pairs), safe=_PLAIN, quote_via=quote)
