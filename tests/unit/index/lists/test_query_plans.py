"""No list reads the whole table, and none reads what its reader may not see."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from opstream_index.filters.checks import check_indexed, parse_filter
from opstream_index.filters.order import ListOrder, parse_order
from opstream_index.lists.examples import EXAMPLES, ListExample
from opstream_index.lists.plan import ListScope, Place, candidates
from opstream_index.lists.reader import ListQuery
from tests.support.index.filled_index import FilledIndex, rare_rows
from tests.support.index.reference_list import row

pytestmark = pytest.mark.unit

PAGE = Path(__file__).resolve().parents[4] / "docs" / "list.md"
FILTERS = (
    "status eq 'Failed'",
    "kind in ('book:print', 'book:scan')",
    "contains(message, 'disk')",
    "label/team eq 'press' and status eq 'Failed'",
    "resourceId eq '1' or resourceId eq '2'",
    "caller eq 'bob'",
)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FilledIndex]:
    """An index of 3,000 operations, of which few are special, so that plans are those of a large one."""
    found = FilledIndex(tmp_path_factory.mktemp("plans"), rare_rows(3_000))
    yield found
    found.close()


def _query(example: ListExample, scope: ListScope) -> ListQuery:
    term = parse_filter(example.filter) if example.filter else None
    order = parse_order(example.orderby) if example.orderby else ListOrder()
    check_indexed(term, order.field)
    return ListQuery(term=term, order=order, scope=scope)


def _walks_all(plan: str) -> list[str]:
    """The steps that read a table without an index, or sort more than equal times."""
    steps = [step.strip() for step in plan.splitlines()]
    scans = [step for step in steps if step.startswith("SCAN") and not re.fullmatch(r"SCAN (w|search VIRTUAL.*)", step)]
    return scans + [step for step in steps if "TEMP B-TREE" in step]


def test_the_page_has_the_examples() -> None:
    """docs/list.md shows exactly those that are tested and measured."""
    table = PAGE.read_text(encoding="utf-8").partition("## Count")[0]
    found = re.findall(r"^\| ([A-Z].*\?) \| (?:`(.*)`)? ?\| (?:`(.*)`)? ?\|$", table, re.MULTILINE)
    assert [ListExample(*one) for one in found] == list(EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.question)
@pytest.mark.parametrize("scope", [ListScope(), ListScope("acme"), ListScope("acme", "ann")], ids=str)
def test_no_example_reads_the_whole_table(index: FilledIndex, example: ListExample, scope: ListScope) -> None:
    """Neither its pages, nor the look at how many rows there are: for an operator, a tenant, and one caller."""
    for after in (None, Place(10**18, 10**15)):
        query = _query(example, scope)
        query = ListQuery(term=query.term, order=query.order, scope=scope, after=after)
        for plan in index.plans(query):
            assert _walks_all(plan) == []
    index.lists.page(_query(example, scope), now=0)


def test_the_check_finds_a_scan(index: FilledIndex) -> None:
    """Of a query that reads the whole table, and of one that sorts."""
    steps = index.reader.fetch("EXPLAIN QUERY PLAN SELECT * FROM operation WHERE attempt > 3 ORDER BY attempt")
    assert len(_walks_all("\n".join(step[-1] for step in steps))) == 2


@pytest.mark.parametrize("text", FILTERS)
@pytest.mark.parametrize("order", [ListOrder("createdAt"), ListOrder("finishedAt")], ids=lambda order: order.field)
def test_a_caller_is_served_by_its_own_rows(text: str, order: ListOrder) -> None:
    """By nothing else, whatever it asks for: another index would take the longer the more others have in it."""
    walks = candidates(parse_filter(text), order, ListScope("acme", "ann"), has_texts=True)
    (arm,) = [arm for walk in walks for arm in walk.arms]
    assert arm.index in {"operation_caller", "operation_caller_finished"}
    assert arm.equal == (("caller", "ann"),)


@pytest.mark.parametrize("text", FILTERS)
def test_a_tenant_is_served_by_its_own_rows(index: FilledIndex, text: str) -> None:
    """Each walk begins with the tenant; the index of texts, which is one for all, serves the operator only."""
    for order in (ListOrder("createdAt"), ListOrder("finishedAt")):
        query = ListQuery(term=parse_filter(text), order=order, scope=ListScope("acme"))
        for plan in index.plans(query):
            searches = [step for step in plan.splitlines() if "SEARCH" in step and "rowid=?" not in step]
            assert searches
            assert all("(tenant=?" in step for step in searches)
            assert "VIRTUAL" not in plan
    assert "VIRTUAL" in index.plans(ListQuery(term=parse_filter("contains(message, 'disk')")))[0]


def test_foreign_rows_are_no_steps(index: FilledIndex, tmp_path: Path) -> None:
    """What a caller's empty list costs does not depend on what others have: SQLite takes as many steps."""
    alone = FilledIndex(tmp_path, [row(1, tenant="acme", caller="eve")])
    try:
        for text in FILTERS:
            query = ListQuery(term=parse_filter(text), scope=ListScope("acme", "eve"))
            assert _steps(index, query) <= _steps(alone, query) + 50
            query = ListQuery(term=parse_filter(text), scope=ListScope("nobody"))
            assert _steps(index, query) <= _steps(alone, query) + 50
    finally:
        alone.close()


def _steps(index: FilledIndex, query: ListQuery) -> int:
    """How many instructions a page takes."""
    count = 0

    def count_step() -> int:
        nonlocal count
        count += 1
        return 0

    index.reader.fetch("SELECT 1")
    database = index.reader._database
    assert database is not None
    database.set_progress_handler(count_step, 1)
    index.lists.page(query, now=0)
    database.set_progress_handler(None, 1)
    return count


def test_walks_that_only_some_filters_take(tmp_path: Path) -> None:
    """A tenant's `contains` finds failures and open operations; bounds of times take and leave their ends."""
    rows = [
        row(1, tenant="acme", status="Failed", message="Disk full", code="1"),
        row(2, tenant="acme", status="Running", message="disk half full"),
        row(3, tenant="acme", status="NotStarted"),
        row(4, tenant="other", status="Failed", message="disk full", code="1"),
    ]
    index = FilledIndex(tmp_path, rows)
    try:

        def found(text: str) -> list[str]:
            term = parse_filter(text)
            return [one.id for one in index.lists.page(ListQuery(term=term, scope=ListScope("acme")), now=0).rows]

        assert found("contains(message, 'DISK')") == ["id-2", "id-1"]
        moment = "2026-11-30T00:53:20.000002Z"
        assert found(f"createdAt le {moment}") == ["id-2", "id-1"]
        assert found(f"createdAt lt {moment}") == ["id-1"]
        assert found(f"createdAt ge {moment}") == ["id-3", "id-2"]
        assert found(f"createdAt gt {moment}") == ["id-3"]
        assert found(f"createdAt eq {moment}") == ["id-2"]
    finally:
        index.close()
