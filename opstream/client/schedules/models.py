"""A schedule as the service last reported it, and the moments of a backfill. Pure."""

from __future__ import annotations

from datetime import datetime

import msgspec


class ScheduleOccurrence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What became of a moment of a schedule."""

    due_at: datetime
    outcome: str
    """`submitted`, `refused` or `missed`."""
    operation_id: str = ""
    """Empty without an operation."""
    cause: str = "schedule"
    """`schedule`, `trigger` or `backfill`."""
    by: str = ""
    """Who triggered it or had it made up for."""
    recorded_at: datetime
    detail: str = ""
    """Why it was refused or missed."""


class ScheduleView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A schedule as the service reported it. A service of another version may send more."""

    name: str
    status: str
    """`Active` or `Paused`."""
    action: str
    resource_id: str = ""
    input: msgspec.Raw
    """JSON."""
    cron: str = ""
    time_zone: str = "UTC"
    every: int = 0
    """Seconds."""
    pause_on_failure: bool = False
    paused: bool = False
    caller: str = ""
    created_at: datetime
    changed_at: datetime
    next_at: datetime | None = None
    """When it is due next; None while it is paused, or if it is never due again."""
    paused_because: str = ""
    """Why opstream paused it."""
    last: ScheduleOccurrence | None = None
    """What became of its last moment; None before the first."""


class MadeUpMoment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A moment that was made up for."""

    due_at: datetime
    operation_id: str = ""
    """Empty if the submit was refused."""
    detail: str = ""
    """Why."""
