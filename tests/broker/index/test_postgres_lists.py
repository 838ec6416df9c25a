"""Lists from an index in PostgreSQL: the same rows in the same order as from SQLite, without a scan of the table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opstream_index.counts.group_field import GroupField
from opstream_index.counts.reader import CountQuery, CountReader
from opstream_index.filters.checks import parse_filter
from opstream_index.filters.order import ListOrder, parse_order
from opstream_index.lists.examples import EXAMPLES
from opstream_index.lists.plan import ListScope
from opstream_index.lists.reader import ListQuery, ListReader
from opstream_index.lists.sql import POSTGRESQL, ListSql
from opstream_index.location import IndexLocation
from opstream_index.operation_row import OperationRow
from opstream_index.postgres_store import PostgresReader, PostgresWriter
from opstream_index.tables import POSTGRES_SCHEMA
from tests.support.index.reference_count import counted, group_fields, numbers_of, reference_numbers
from tests.support.index.reference_list import FILTERS, list_orders, listed_ids, reference_ids, row, rows, scopes

pytestmark = pytest.mark.broker


class PostgresIndex:
    """An index in a database of its own."""

    def __init__(self, url: str) -> None:
        self.location = IndexLocation(url=url)
        self.writer = PostgresWriter(self.location)
        self.writer.open("test")
        self.writer.begin("view")
        self.reader = PostgresReader(self.location)
        self.lists = ListReader(self.reader, POSTGRESQL)
        self._cleaner = psycopg.connect(url, autocommit=True)

    def refill(self, found: list[OperationRow]) -> None:
        """Replace all rows."""
        self._cleaner.execute(f"TRUNCATE {POSTGRES_SCHEMA}.operation, {POSTGRES_SCHEMA}.label")
        if found:
            self.writer.write(found)

    def close(self) -> None:
        """Close the connections."""
        self._cleaner.close()
        self.reader.close()
        self.writer.close()


@pytest.fixture
def index(database: str) -> Iterator[PostgresIndex]:
    """An empty index."""
    found = PostgresIndex(database)
    yield found
    found.close()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    found=rows(),
    texts=st.lists(st.none() | FILTERS | FILTERS | FILTERS, min_size=3, max_size=6),
    order=list_orders,
    scope=scopes,
    size=st.integers(1, 4),
    window=st.sampled_from([1, 3, 10_000]),
)
def test_a_list_has_what_its_filter_says(
    index: PostgresIndex,
    found: list[OperationRow],
    texts: list[str | None],
    order: ListOrder,
    scope: Any,
    size: int,
    window: int,
) -> None:
    """As the reference does, and so as SQLite does."""
    index.refill(found)
    for text in texts:
        query = ListQuery(term=None if text is None else parse_filter(text), order=order, scope=scope, size=size)
        assert listed_ids(index.lists, query, window) == reference_ids(found, query), text


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    found=rows(),
    texts=st.lists(st.none() | FILTERS | FILTERS | FILTERS, min_size=3, max_size=6),
    group_field=group_fields,
    scope=scopes,
    step=st.sampled_from([1, 3, 50_000]),
)
def test_a_count_has_what_its_filter_says(
    index: PostgresIndex,
    found: list[OperationRow],
    texts: list[str | None],
    group_field: GroupField | None,
    scope: Any,
    step: int,
) -> None:
    """As the reference does, and so as SQLite does; durations, too."""
    index.refill(found)
    counts = CountReader(index.reader, POSTGRESQL)
    for text in texts:
        query = CountQuery(term=None if text is None else parse_filter(text), group_field=group_field, scope=scope)
        assert numbers_of(counted(counts, query, step)) == reference_numbers(found, query), text


def test_durations_of_a_count(index: PostgresIndex) -> None:
    """They are those of the rows, and the longest is exact."""
    took = [-5, 0, 9, 10, 123, 45_678, 9_999_999, 86_400_000_000]
    index.refill([row(number, started_at=0, finished_at=value) for number, value in enumerate(took)])
    found = CountReader(index.reader, POSTGRESQL).count(CountQuery(), now=0).whole.durations
    assert found is not None
    assert (found.number, found.longest) == (len(took), 86_400.0)
    assert found.median == pytest.approx(10e-6, rel=0.05)
    assert found.p95 == pytest.approx(86_400.0, rel=0.05)


@pytest.mark.parametrize("scope", [ListScope(), ListScope("acme", "ann")], ids=str)
def test_no_example_needs_a_scan_of_the_table(index: PostgresIndex, scope: ListScope) -> None:
    """Where PostgreSQL is not allowed to scan it, it finds an index for each, in order: it sorts equal times only."""
    index.reader.fetch(
        "SELECT set_config('enable_seqscan', 'off', false), set_config('enable_bitmapscan', 'off', false)"
    )
    index.reader.fetch("SELECT set_config('enable_sort', 'off', false)")
    for example in EXAMPLES:
        order = parse_order(example.orderby) if example.orderby else ListOrder()
        query = ListQuery(term=parse_filter(example.filter) if example.filter else None, order=order, scope=scope)
        sql = ListSql(POSTGRESQL, query.term, query.order, query.scope, None)
        statement = sql.page(index.lists.walk(query), 100, 0)
        plan = "\n".join(row[0] for row in index.reader.fetch(f"EXPLAIN {statement.text}", statement.parameters))
        assert "Seq Scan on operation" not in plan, plan
        assert "Index Cond: ((tenant = ''" in plan or "Index Cond: (tenant = ''" in plan or "'acme'" in plan, plan
