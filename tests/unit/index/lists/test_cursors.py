"""A cursor is refused if one bit of it was changed, or if it belongs to another list."""

from __future__ import annotations

from itertools import product

import pytest

from opstream_index.filters.checks import parse_filter
from opstream_index.filters.order import ListOrder
from opstream_index.filters.syntax import Term
from opstream_index.lists.cursor import Cursor, CursorRefused, CursorSigner
from opstream_index.lists.plan import ListScope, Place

pytestmark = pytest.mark.unit

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
CURSOR = Cursor(1_796_000_000_000_000, Place(1_839_104_000_000_000_123, 1_796_000_000_000_001))
LIST = (parse_filter("status eq 'Failed'"), ListOrder(), ListScope("acme", "ann"))
SIGNER = CursorSigner(b"secret")


def test_a_cursor_comes_back() -> None:
    """As it was written, and short enough for a URL."""
    text = SIGNER.write(CURSOR, *LIST)
    assert SIGNER.read(text, *LIST) == CURSOR
    assert len(text) < 100


def test_a_changed_cursor_is_refused() -> None:
    """Each of its letters replaced by each other one, and one more or less."""
    text = SIGNER.write(CURSOR, *LIST)
    changed = {text[:at] + letter + text[at + 1 :] for at, letter in product(range(len(text)), LETTERS)} - {text}
    for one in (*changed, text[:-1], text + "A", text + "=", text + "\n", "", "A" * 600, "é", "%00", f" {text}"):
        with pytest.raises(CursorRefused, match="begin again without a cursor"):
            SIGNER.read(one, *LIST)


@pytest.mark.parametrize(
    "other",
    [
        (parse_filter("status eq 'Canceled'"), *LIST[1:]),
        (None, *LIST[1:]),
        (LIST[0], ListOrder("finishedAt"), LIST[2]),
        (LIST[0], ListOrder(is_descending=False), LIST[2]),
        (*LIST[:2], ListScope("acme", "bob")),
        (*LIST[:2], ListScope("acme", None)),
        (*LIST[:2], ListScope("", "ann")),
    ],
    ids=str,
)
def test_a_cursor_of_another_list_is_refused(other: tuple[Term | None, ListOrder, ListScope]) -> None:
    """Of another filter, order, tenant or caller; and of another installation."""
    text = SIGNER.write(CURSOR, *LIST)
    with pytest.raises(CursorRefused):
        SIGNER.read(text, *other)
    with pytest.raises(CursorRefused):
        CursorSigner(b"another").read(text, *LIST)
    with pytest.raises(CursorRefused):
        CursorSigner().read(text, *LIST)
