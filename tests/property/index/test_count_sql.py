"""A count has exactly the operations for which its filter is true, each once, and only those of its reader's scope."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_index.counts.group_field import GroupField
from opstream_index.counts.reader import COUNT_SECONDS, CountQuery, CountReader
from opstream_index.counts.tally import duration_bucket
from opstream_index.filters.checks import parse_filter
from opstream_index.lists.plan import ListScope
from opstream_index.lists.sql import SQLITE
from opstream_index.operation_row import OperationRow
from tests.support.index.memory_index import MemoryIndex
from tests.support.index.reference_count import counted, group_fields, numbers_of, reference_numbers
from tests.support.index.reference_list import FILTERS, row, rows, scopes

pytestmark = pytest.mark.unit


@given(
    rows(),
    st.lists(st.none() | FILTERS | FILTERS | FILTERS, min_size=3, max_size=6),
    group_fields,
    scopes,
    st.sampled_from([1, 3, 50_000]),
)
def test_a_count_has_what_its_filter_says(
    found: list[OperationRow], texts: list[str | None], group_field: GroupField | None, scope: ListScope, step: int
) -> None:
    """However small its steps are, and by whatever it is counted."""
    index = MemoryIndex(found)
    counts = CountReader(index, SQLITE, clock=lambda: 0.0)
    for text in texts:
        query = CountQuery(term=None if text is None else parse_filter(text), group_field=group_field, scope=scope)
        assert numbers_of(counted(counts, query, step)) == reference_numbers(found, query), text
    index.close()


@given(rows(), st.none() | FILTERS, group_fields, st.integers(1, 4))
def test_a_count_that_ends_early_has_all_from_a_time_on(
    found: list[OperationRow], text: str | None, group_field: GroupField | None, step: int
) -> None:
    """It says which time that is, and what it has is exact; the rest is counted from there."""
    index = MemoryIndex(found)
    hurried = CountReader(index, SQLITE, clock=itertools.count(step=int(COUNT_SECONDS)).__next__)
    query = CountQuery(term=None if text is None else parse_filter(text), group_field=group_field)
    count = counted(hurried, query, step)
    column = count.order.column
    begin = count.counted_from
    newest = [one for one in found if begin is None or (getattr(one, column) or 0) >= begin]
    assert numbers_of(count) == reference_numbers(newest, query)
    index.close()


@given(st.lists(st.integers(-5, 10**12), min_size=1, max_size=30))
def test_durations_are_those_of_the_rows(durations: list[int]) -> None:
    """SQL puts each into the bucket that the rule says, and percentiles are right to 5 %."""
    found = [row(number, started_at=0, finished_at=took) for number, took in enumerate(durations)]
    index = MemoryIndex(found)
    whole = CountReader(index, SQLITE).count(CountQuery(), now=0).whole
    index.close()
    took = whole.durations
    assert took is not None
    assert took.number == len(durations)
    assert took.longest == max(0, *durations) / 1e6
    ordered = sorted(max(0, one) for one in durations)
    for share, value in ((0.5, took.median), (0.95, took.p95)):
        exact = ordered[-(-len(ordered) * int(share * 100) // 100) - 1] / 1e6
        assert value == pytest.approx(exact, rel=0.05, abs=1e-5)


def test_buckets_keep_the_order() -> None:
    """A longer duration is never in a lower bucket."""
    values = [*range(2_000), *(10**power + step for power in range(3, 15) for step in (-1, 0, 1))]
    buckets = [duration_bucket(value) for value in sorted(values)]
    assert buckets == sorted(buckets)
