"""A list has exactly the rows for which its filter is true, each once, in order, and only of its reader's scope."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_index.filters.checks import parse_filter
from opstream_index.filters.errors import FilterRefused
from opstream_index.filters.order import ListOrder
from opstream_index.lists import plan
from opstream_index.lists.plan import ListScope
from opstream_index.lists.reader import ListQuery, ListReader
from opstream_index.lists.sql import SQLITE
from opstream_index.operation_row import OperationRow
from tests.support.index.memory_index import MemoryIndex
from tests.support.index.reference_list import FILTERS, list_orders, listed_ids, reference_ids, rows, scopes

pytestmark = pytest.mark.unit


@given(
    rows(),
    st.lists(st.none() | FILTERS | FILTERS | FILTERS, min_size=3, max_size=6),
    list_orders,
    scopes,
    st.integers(1, 4),
    st.sampled_from([1, 3, 10_000]),
    st.booleans(),
)
def test_a_list_has_what_its_filter_says(
    found: list[OperationRow],
    texts: list[str | None],
    order: ListOrder,
    scope: ListScope,
    size: int,
    window: int,
    is_hurried: bool,
) -> None:
    """Through all pages, however small page and window are, and however early a page ends."""
    index = MemoryIndex(found)
    lists = ListReader(index, SQLITE, clock=itertools.count().__next__ if is_hurried else lambda: 0.0)
    for text in texts:
        query = ListQuery(term=None if text is None else parse_filter(text), order=order, scope=scope, size=size)
        assert listed_ids(lists, query, window) == reference_ids(found, query), text
    index.close()


@given(st.text(max_size=60) | FILTERS.flatmap(lambda text: st.permutations(text).map("".join)))
def test_no_text_breaks_the_parser(text: str) -> None:
    """Whatever is sent is a filter or refused, with a message of one short line."""
    try:
        term = parse_filter(text)
    except FilterRefused as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert len(message) < 500
        return
    index = MemoryIndex([])
    ListReader(index, SQLITE).page(ListQuery(term=term), now=0)
    index.close()
    assert plan.candidates(term, ListOrder(), ListScope())
