"""What of a list is sent, in which order, in pages of which size: `orderby`, `select`, `maxpagesize`."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from .errors import FilterRefused, shown
from .fields import MEMBERS, ORDERS

DEFAULT_PAGE_SIZE: Final = 100
"""Items of a page if the request does not say how many."""
MAX_PAGE_SIZE: Final = 1000
"""Items of a page, at most."""

_DIRECTIONS: Final = ("asc", "desc")
_SIZE: Final = re.compile(r"[0-9]{1,9}")


class ListOrder(msgspec.Struct, frozen=True):
    """By which field a list is ordered. Rows of one time are in the order of their stored ids."""

    field: str = "createdAt"
    is_descending: bool = True

    @property
    def column(self) -> str:
        """Return its column in the index."""
        return ORDERS[self.field]

    @property
    def text(self) -> str:
        """Return it as a request writes it."""
        return f"{self.field} {_DIRECTIONS[self.is_descending]}"


def parse_order(text: str) -> ListOrder:
    """Return the order that `orderby` names: one field, and `asc` (the default, as Azure's guidelines say) or `desc`.

    Raises:
        FilterRefused: it names something else. The message says what is allowed.
    """
    field, *rest = text.split() or [""]
    if field not in ORDERS:
        raise FilterRefused(
            f"a list can't be ordered by {shown(field)}, only by one of {', '.join(ORDERS)}", parameter="orderby"
        )
    if len(rest) > 1 or (rest and rest[0] not in _DIRECTIONS):
        raise FilterRefused(
            f"{field} is followed by asc, desc or nothing, and not by {shown(' '.join(rest))}", parameter="orderby"
        )
    return ListOrder(field, rest == ["desc"])


def parse_selection(text: str) -> tuple[str, ...]:
    """Return the members of an item that `select` names, `id` among them, in the order in which they are sent.

    Raises:
        FilterRefused: there is no such member. The message names them all.
    """
    names = {name.strip() for name in text.split(",")}
    unknown = sorted(names - set(MEMBERS))
    if unknown:
        raise FilterRefused(
            f"an item has no member {shown(unknown[0])}; it has: {', '.join(MEMBERS)}", parameter="select"
        )
    return tuple(name for name in MEMBERS if name in names or name == "id")


def parse_page_size(text: str) -> int:
    """Return how many items a page may have. More than `MAX_PAGE_SIZE` is as many, as a page may always have fewer.

    Raises:
        FilterRefused: it is no whole number from 1.
    """
    if _SIZE.fullmatch(text) is None or int(text) < 1:
        raise FilterRefused(f"it must be a whole number from 1 to {MAX_PAGE_SIZE}", parameter="maxpagesize")
    return min(int(text), MAX_PAGE_SIZE)
