"""No count reads the whole table by a scan, and none reads what its reader may not see."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from opstream_index.counts import reader
from opstream_index.counts.examples import COUNT_EXAMPLES, CountExample
from opstream_index.counts.group_field import parse_group_field
from opstream_index.counts.reader import CountQuery, CountReader, order_of
from opstream_index.counts.sql import CountSql
from opstream_index.counts.tally import MAX_GROUPS, StepRow, Tally, TooManyGroups
from opstream_index.filters.checks import check_indexed, parse_filter
from opstream_index.filters.errors import FilterRefused
from opstream_index.filters.order import ListOrder
from opstream_index.lists.plan import ListScope
from opstream_index.lists.reader import ListQuery
from opstream_index.lists.sql import SQLITE
from tests.support.index.filled_index import FilledIndex, rare_rows

pytestmark = pytest.mark.unit

PAGE = Path(__file__).resolve().parents[4] / "docs" / "list.md"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FilledIndex]:
    """An index of 3,000 operations of two tenants, of which few failed."""
    found = FilledIndex(tmp_path_factory.mktemp("counts"), rare_rows(3_000))
    yield found
    found.close()


def _query(example: CountExample, scope: ListScope) -> CountQuery:
    term = parse_filter(example.filter) if example.filter else None
    check_indexed(term, order_of(term).field)
    return CountQuery(term=term, group_field=parse_group_field(example.by) if example.by else None, scope=scope)


def _plans(index: FilledIndex, query: CountQuery) -> Iterator[list[str]]:
    """How SQLite answers the statements of a first, a middle and a last step."""
    order = order_of(query.term)
    walk = index.lists.walk(ListQuery(term=query.term, order=order, scope=query.scope))
    for end, begin in ((None, 5), (9, 5), (9, None)):
        sql = CountSql(SQLITE, query.term, order, query.scope, end)
        for statement in (sql.end_of_window(walk, 50_000), sql.step(walk, query.group_field, begin, 0)):
            steps = index.reader.fetch(f"EXPLAIN QUERY PLAN {statement.text}", statement.parameters)
            yield [str(step[-1]) for step in steps]


def test_the_page_has_the_questions() -> None:
    """docs/list.md shows exactly those that are tested and measured."""
    table = PAGE.read_text(encoding="utf-8").partition("## Count")[2].partition("\n## ")[0]
    found = re.findall(r"^\| ([A-Z].*\?) \| (?:`(.*)`)? ?\| (?:`(.*)`)? ?\|$", table, re.MULTILINE)
    assert [CountExample(*one) for one in found] == list(COUNT_EXAMPLES)


@pytest.mark.parametrize("example", COUNT_EXAMPLES, ids=lambda example: example.question)
@pytest.mark.parametrize("scope", [ListScope(), ListScope("acme"), ListScope("acme", "ann")], ids=str)
def test_no_question_scans_the_table(index: FilledIndex, example: CountExample, scope: ListScope) -> None:
    """Each row is found by an index that begins with the tenant, or by a text; only the sums of a step are sorted."""
    query = _query(example, scope)
    for plan in _plans(index, query):
        scans = [one for one in plan if one.startswith("SCAN") and not re.fullmatch(r"SCAN (w|search VIRTUAL.*)", one)]
        sorts = [one for one in plan if "TEMP B-TREE" in one and "GROUP BY" not in one]
        assert scans + sorts == []
        searches = [one for one in plan if "SEARCH" in one and "rowid=?" not in one]
        assert all("(tenant=?" in one for one in searches)
        if scope.caller is not None:
            assert all("caller=?" in one for one in searches)
    CountReader(index.reader, SQLITE).count(query, now=0)


def test_a_filter_without_an_index_is_refused() -> None:
    """As for a list, and the message names the time that would do."""
    for text, field in (("attempt gt 3", "createdAt"), ("startedAt ge 2026-11-30T08:00:00Z", "createdAt")):
        term = parse_filter(text)
        with pytest.raises(FilterRefused, match=field):
            check_indexed(term, order_of(term).field)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("status eq 'Failed'", "createdAt"),
        ("finishedAt ge 2026-11-30T08:00:00Z", "finishedAt"),
        ("finishedAt lt 2026-11-30T08:00:00Z", "finishedAt"),
        ("finishedAt lt 2026-11-30T08:00:00Z and createdAt ge 2026-11-30T07:00:00Z", "createdAt"),
        ("finishedAt ge 2026-11-30T08:00:00Z and createdAt lt 2026-11-30T09:00:00Z", "finishedAt"),
        ("finishedAt ge 2026-11-30T08:00:00Z and createdAt ge 2026-11-30T07:00:00Z", "createdAt"),
        ("status eq 'Failed' and not (finishedAt ge 2026-11-30T08:00:00Z)", "createdAt"),
        ("finishedAt ne null", "createdAt"),
    ],
)
def test_a_count_goes_by_the_time_that_its_filter_bounds(text: str, field: str) -> None:
    """So that it reads that time, and not all that there ever was."""
    assert order_of(parse_filter(text)) == ListOrder(field)


def test_a_count_reads_its_time_only(index: FilledIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound of the filter ends the steps, whatever lies beyond."""
    monkeypatch.setattr(reader, "STEP", 100)
    statements: list[str] = []
    fetch = index.reader.fetch

    def noted(statement: str, *arguments: object, **more: object) -> object:
        statements.append(statement)
        return fetch(statement, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(index.reader, "fetch", noted)
    term = parse_filter("finishedAt ge 1970-01-01T00:00:00.002701Z")
    count = CountReader(index.reader, SQLITE).count(CountQuery(term=term), now=0)
    assert (count.whole.number, count.counted_from) == (150, None)
    assert len([one for one in statements if "GROUP BY" in one]) == 2


def test_too_many_values() -> None:
    """Of a field with more values than fit into an answer none is counted."""
    tally = Tally()
    rows = [StepRow(str(number), "Failed", None, 1, None) for number in range(MAX_GROUPS)]
    tally.add(rows)
    tally.add(rows)
    assert (len(tally.groups()), tally.whole().number) == (MAX_GROUPS, 2 * MAX_GROUPS)
    with pytest.raises(TooManyGroups):
        tally.add([StepRow("one more", "Failed", None, 1, None)])
