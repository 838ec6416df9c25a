"""What somebody wants to read of the journal or its archive. Made from options, carried out by `walking`."""

from __future__ import annotations

from datetime import datetime

import msgspec

from opstream_schemas.event_filter import Selection


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What to read."""

    selection: Selection = Selection()
    first: int | None = None
    """Stream sequence to begin with; None for the first that there is."""
    since: datetime | None = None
    """Nothing that the broker stored before; in the archive, whose messages are copies, nothing that happened before,
    as the events say."""
    until: datetime | None = None
    """Nothing that the broker stored, or that happened, then or later."""
    is_archive: bool = False
    is_following: bool = False
