"""What must be the same of two histories of one operation, and what differs in any two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from opstream_schemas.events import RecordedEvent

_DIFFERENT: Final = frozenset({"runner", "token", "ticket", "retryAt", "until", "seconds"})
"""Members that hold names, random texts, sequences and times."""


def comparable(events: Sequence[RecordedEvent]) -> list[tuple[str, int, dict[str, Any]]]:
    """Return type, position and data of all events but the request, which another part writes."""
    return [
        (
            event.type,
            event.position,
            {
                name: value
                for name, value in msgspec.json.decode(msgspec.json.decode(event.stored, type=_Stored).data).items()
                if name not in _DIFFERENT
            },
        )
        for event in events[1:]
    ]


class _Stored(msgspec.Struct):
    data: msgspec.Raw
