"""The event of a handler that was canceled and cleans up (docs/adr/0077)."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from .base import EventData


class StepName(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which step."""

    name: str
    key: str = ""


class CleanUpBegun(EventData, frozen=True, kw_only=True):
    """A canceled handler comes to the first step of its clean-up. What is recorded from here on belongs to that."""

    name: ClassVar[str] = "cleaning-up"
    type: ClassVar[str] = "opstream.action.cleaning-up.v1"

    attempt: int
    canceled: tuple[StepName, ...] = ()
    """The steps that were under way: the handler has seen them canceled, also if a result of them is recorded."""
