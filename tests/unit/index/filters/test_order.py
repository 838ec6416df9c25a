"""`orderby`, `select` and `maxpagesize`: what they mean, and what is refused."""

from __future__ import annotations

import pytest

from opstream_index.filters.errors import FilterRefused
from opstream_index.filters.order import MAX_PAGE_SIZE, ListOrder, parse_order, parse_page_size, parse_selection

pytestmark = pytest.mark.unit


def test_an_order_is_ascending_by_itself() -> None:
    """As Azure's guidelines say; a list without any is descending by `createdAt`."""
    assert parse_order("createdAt") == ListOrder("createdAt", is_descending=False)
    assert parse_order(" finishedAt  desc ") == ListOrder("finishedAt", is_descending=True)
    assert parse_order("finishedAt asc") == ListOrder("finishedAt", is_descending=False)
    assert ListOrder() == parse_order("createdAt desc")


@pytest.mark.parametrize(
    "text", ["", "status", "createdAt DESC", "createdAt desc, finishedAt", "createdat", "createdAt;"]
)
def test_other_orders_are_refused(text: str) -> None:
    """The message names what is allowed."""
    with pytest.raises(FilterRefused, match=r"createdAt.*(finishedAt|desc)") as caught:
        parse_order(text)
    assert caught.value.parameter == "orderby"


def test_a_selection_has_the_id() -> None:
    """Whatever it names; the order is that of an item."""
    assert parse_selection("createdAt, status,status") == ("id", "status", "createdAt")
    for text in ("", "result", "status,,kind", "*"):
        with pytest.raises(FilterRefused, match="retryOf"):
            parse_selection(text)


def test_a_page_size_is_bounded() -> None:
    """More than a page may have is as many as it may."""
    assert (parse_page_size("1"), parse_page_size("999999999")) == (1, MAX_PAGE_SIZE)
    for text in ("0", "-1", "", "1.5", "ten", "1" * 10, "٣"):
        with pytest.raises(FilterRefused, match="from 1 to 1000"):
            parse_page_size(text)
