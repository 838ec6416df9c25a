"""The id of a child: it follows from its parent and the name that the parent's action gives it.

An id exists once. So a parent that asks again, after its runner died, gets the child that it has.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from hashlib import sha256
from typing import Final

import msgspec

MAX_CHILDREN: Final = 10_000
"""Children that are asked for together at most."""
MAX_DEPTH: Final = 16
"""Parents above an operation at most: an action that begins itself, again and again, ends here."""
_CHILD_ID: Final = re.compile(r"child-[A-Za-z0-9_-]{43}")


class ChildGroup(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Children that an action has asked for together, or one alone."""

    name: str
    key: str = ""
    count: int = 1
    is_alone: bool = False
    """True for one child that has no place among others."""

    def child_id(self, parent: str, index: int) -> str:
        """Return the id of the child at a place, from 0. Arguments as of `child_id`."""
        return child_id(parent, self.name, self.key, None if self.is_alone else index)

    def child_ids(self, parent: str) -> Iterator[str]:
        """Return the ids of all of them, in order."""
        return (self.child_id(parent, index) for index in range(self.count))


def child_id(parent: str, name: str, key: str, index: int | None) -> str:
    """Return the id of a child, under which it is stored and clients know it: `child-` and 43 characters.

    With authentication the parent's stored id can't be guessed (docs/adr/0046), so nor can this one: children of two
    tenants never have one id, and no client can tell whether there is one.

    Args:
        parent: the id under which its parent is stored.
        name: by which the parent's action knows it.
        key: which of several of that name; empty for none.
        index: its place among those that were asked for together; None for one that was asked for alone.
    """
    # Neither a name nor a key has a control character, so no two children have one text.
    text = "\0".join((parent, name, key, "" if index is None else str(index)))
    return "child-" + urlsafe_b64encode(sha256(text.encode()).digest()).rstrip(b"=").decode()


def is_child_id(operation_id: str) -> bool:
    """Return True if an id has the form of `child_id`, which no client's submit may have."""
    return bool(_CHILD_ID.fullmatch(operation_id))
