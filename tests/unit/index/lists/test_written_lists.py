"""A row that matches throughout is in exactly one page, whatever is written between the pages."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from opstream_index.filters.checks import parse_filter
from opstream_index.filters.order import ListOrder
from opstream_index.lists.reader import ListQuery
from opstream_index.operation_row import OperationRow
from tests.support.index.filled_index import FilledIndex
from tests.support.index.reference_list import BEGIN, row

pytestmark = pytest.mark.unit

FILTERS = (
    "kind eq 'book:print'",
    "status in ('Failed', 'Running')",
    "label/team eq 'press'",
    "contains(message, 'disk')",
)


def stays(number: int) -> OperationRow:
    """A row that matches all filters, and ended before the list began; many are of one microsecond."""
    return row(
        number,
        created_at=BEGIN + number // 7,
        status="Failed",
        code="1",
        message="disk full",
        labels='{"team":"press"}',
        finished_at=BEGIN + 1000 + number // 5,
        position=1,
    )


def moves(draw: random.Random, number: int, position: int) -> OperationRow:
    """A row of an operation that begins, runs, ends, or is seen again, at any time of the list."""
    status = draw.choice(["NotStarted", "Running", "Failed", "Succeeded"])
    return row(
        number,
        created_at=BEGIN + number * 13 % 60,
        status=status,
        message=draw.choice(["disk full", None, "page 3"]) if status in {"Running", "Failed"} else None,
        finished_at=BEGIN + 1000 + draw.randrange(80) if status in {"Failed", "Succeeded"} else None,
        labels='{"team":"press"}' if number % 2 else None,
        position=position,
    )


@pytest.mark.parametrize("text", FILTERS)
@pytest.mark.parametrize("order", ["createdAt desc", "createdAt asc", "finishedAt desc", "finishedAt asc"])
def test_rows_that_match_throughout(tmp_path: Path, text: str, order: str) -> None:
    """Each once, in every order, with new, changed and expired rows between any two pages."""
    draw = random.Random(f"{text} {order}")
    staying = [stays(number) for number in range(120)]
    index = FilledIndex(tmp_path, staying)
    field, _, way = order.partition(" ")
    query = ListQuery(term=parse_filter(text), order=ListOrder(field, is_descending=way == "desc"), size=7)
    seen: list[str] = []
    try:
        for step in range(200):
            page = index.lists.page(query, now=0)
            seen += [one.id for one in page.rows]
            if page.next is None:
                break
            query = ListQuery(term=query.term, order=query.order, size=draw.choice([1, 7, 20]), after=page.next)
            index.write(*(moves(draw, 1000 + number, step + 2) for number in draw.sample(range(60), 8)))
            if step % 5 == 0:
                index.write(row(5000 + step, created_at=BEGIN + draw.randrange(60), expires_at=1))
                index.writer.expire(2, 100)
    finally:
        index.close()
    assert page.next is None
    kept = [one for one in seen if int(one.removeprefix("id-")) < 1000]
    assert sorted(kept) == sorted(one.id for one in staying)
    assert len(set(seen)) == len(seen) or field == "finishedAt"
