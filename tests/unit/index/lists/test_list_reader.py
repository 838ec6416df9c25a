"""The reader of lists: which walk it takes, when a page ends early, and what it refuses to pass on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from opstream_index.errors import IndexUnavailable
from opstream_index.filters.checks import parse_filter
from opstream_index.filters.order import ListOrder
from opstream_index.lists import sql
from opstream_index.lists.plan import Source
from opstream_index.lists.reader import PAGE_SECONDS, ListQuery, ListReader
from opstream_index.lists.sql import SQLITE
from tests.support.index.filled_index import FilledIndex
from tests.support.index.reference_list import row

pytestmark = pytest.mark.unit


@pytest.fixture
def index(tmp_path: Path) -> Iterator[FilledIndex]:
    """600 operations: one in ten has a label, one in thirty failed, each has a resource of its own."""
    found = FilledIndex(
        tmp_path,
        (
            row(
                number,
                status="Failed" if number % 30 == 0 else "Succeeded",
                finished_at=number,
                labels='{"team":"press"}' if number % 10 == 0 else None,
                resource_id=str(number),
            )
            for number in range(1, 601)
        ),
    )
    yield found
    found.close()


@pytest.mark.parametrize(
    ("text", "walk"),
    [
        ("label/team eq 'press' and status eq 'Failed'", "operation_status"),
        ("label/team eq 'press' and status ne 'Failed'", Source.LABELS),
        ("kind eq 'book:print' and label/team eq 'press'", Source.LABELS),
        ("status eq 'Failed' and resourceId eq '30'", "operation_resource_id"),
        ("status eq 'Succeeded' and kind eq 'book:print'", "operation_kind"),
        ("status eq 'Succeeded'", "operation_tenant"),
    ],
)
def test_the_narrowest_walk_is_taken(index: FilledIndex, text: str, walk: str | Source) -> None:
    """That whose entries are furthest apart, whatever is named first."""
    with mock.patch.object(sql, "PROBE", 15):
        for order in (ListOrder(), ListOrder("createdAt", is_descending=False)):
            arm = index.lists.walk(ListQuery(term=parse_filter(text), order=order)).arms[0]
            assert (arm.index or arm.source) == walk


def test_what_has_to_be_sorted_is_narrow(index: FilledIndex) -> None:
    """By `finishedAt` an index in the order of `createdAt` is taken only if it has few entries."""
    query = ListQuery(term=parse_filter("label/team eq 'press'"), order=ListOrder("finishedAt"))
    with mock.patch.object(sql, "PROBE", 61):
        assert index.lists.walk(query).arms[0].source is Source.LABELS
    with mock.patch.object(sql, "PROBE", 60):
        assert index.lists.walk(query).arms[0].index == "operation_finished"


def test_a_page_ends_when_its_time_is_over(index: FilledIndex) -> None:
    """It has what was found until then, and goes on behind the last row that was read."""
    query = ListQuery(term=parse_filter("status eq 'Succeeded' and attempt gt 1"), size=5)
    times = itertools.count(0, PAGE_SECONDS / 4)
    with mock.patch.object(sql, "WINDOW", 100):
        page = ListReader(index.reader, SQLITE, clock=lambda: next(times)).page(query, now=0)
        assert page.rows == []
        assert page.next is not None
        patient = ListReader(index.reader, SQLITE, clock=lambda: 0.0).page(query, now=0)
    assert (patient.rows, patient.next) == ([], None)
    read = index.reader.fetch("SELECT count(*) FROM operation WHERE place >= ?", (page.next.place,))
    assert read == [(400,)]


def test_rows_out_of_order_are_refused(index: FilledIndex) -> None:
    """A cursor made from them would leave operations out, in silence."""

    class Shuffled:
        def fetch(self, statement: str, parameters: Any = (), *, timeout: float = 5.0) -> list[tuple[Any, ...]]:
            return list(reversed(index.reader.fetch(statement, parameters)))

        def coverage(self) -> Any:
            return index.reader.coverage()

    with pytest.raises(IndexUnavailable, match="out of order"):
        ListReader(Shuffled(), SQLITE).page(ListQuery(), now=0)
