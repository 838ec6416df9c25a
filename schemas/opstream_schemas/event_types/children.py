"""What events say of children: operations that the action of another one, the parent, begins (docs/adr/0074)."""

from __future__ import annotations

import msgspec

from .base import Instant


class ParentRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Whose child an operation is. The API writes it into `requested`; no client can."""

    id: str
    """Under which the parent is stored."""
    own_id: str = ""
    """The client's own id of the parent; empty if it is `id`."""
    name: str
    """That the parent's action gives to it, alone or with others."""
    key: str = ""
    """Which of several of the name; empty for the only one."""
    index: int | None = None
    """Its place among those that were asked for together, from 0; None for one that was asked for alone."""
    depth: int = 1
    """How many parents are above it."""


class ChildWait(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Of a wait for children: whose end ends it. The wait's own time is for the case that this is never heard of."""

    id: str = ""
    """The child whose end wakes the parent; empty if no child could be begun yet."""
    fail_fast: bool = False
    """True if the parent is woken by each child of the wait's name that does not succeed."""
    any_from: Instant | None = None
    """From when on the parent is woken by the end of any child of the wait's name; None for never."""
    ended: int = 0
    """How many of the first children had ended before the wait, so that the next attempt need not look at them."""
