"""An action in a process of its own whose new version takes what was requested for the one before."""

from __future__ import annotations

from typing import Any

import msgspec

from opstream_runner import ActionContext, action
from tests.support.journal.journals import KIND


class Person(msgspec.Struct, forbid_unknown_fields=True):
    """The input of version 2."""

    first: str
    last: str = ""


def from_before(given: Any, version: int) -> Any:
    """Version 1 had one name."""
    first, _, last = given["name"].partition(" ")
    return {"first": f"{first} (v{version})", "last": last}


@action(str(KIND), version=2, upcast=from_before, isolation="process")
async def upcasting_apart(request: Person, ctx: ActionContext) -> str:
    """Return both names."""
    return f"{request.first}, {request.last}"
