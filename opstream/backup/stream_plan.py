"""What a backup copies, and in which order, so that its parts fit together (docs/adr/0051).

The streams of a backup are from different moments, and the journal decides. What must never know more than the journal
is copied before it. What waits for something that is in the journal is copied after it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from opstream_journal.provisioning.topology import Sizing, streams
from opstream_schemas import subjects
from opstream_schemas.payloads.object_subjects import PAYLOADS_STREAM


class PlannedStream(msgspec.Struct, frozen=True, kw_only=True):
    """How one stream is copied."""

    name: str
    has_consumers: bool = False
    """True if it has durable consumers, whose positions are copied, too. Consumers that the broker makes to copy one
    stream to another are not: it makes them again."""
    has_tail: bool = False
    """True if messages of it are replaced and removed, and nothing else could bring them back. The broker reads a
    stream while it sends it, so a message that is replaced meanwhile is in the copy neither as it was nor as it is:
    the tail has what came later."""


JOURNAL: Final = subjects.OPERATIONS_STREAM

_VIEW: Final = subjects.bucket_stream(subjects.VIEW_BUCKET)
_ACTIONS: Final = subjects.bucket_stream(subjects.ACTIONS_BUCKET)
_HOLDS: Final = subjects.bucket_stream(subjects.HOLDS_BUCKET)

_ORDER: Final = (
    # Before the journal: entries and copies of events must not be newer than the journal (docs/adr/0032).
    PlannedStream(name=_VIEW),
    PlannedStream(name=subjects.ARCHIVE_STREAM),
    PlannedStream(name=JOURNAL, has_consumers=True),
    # After it: what a consumer of the journal has acknowledged has become a message in one of these.
    PlannedStream(name=subjects.TIMERS_STREAM),
    PlannedStream(name=subjects.WEBHOOKS_STREAM, has_consumers=True, has_tail=True),
    PlannedStream(name=subjects.PARKED_STREAM, has_tail=True),
    PlannedStream(name=_HOLDS, has_tail=True),
    PlannedStream(name=_ACTIONS, has_tail=True),
    # A payload is stored before the event that names it, and never changes: those that come later, no event here names.
    PlannedStream(name=PAYLOADS_STREAM),
    PlannedStream(name=subjects.ACCESS_LOG_STREAM),
    PlannedStream(name=subjects.DELIVERIES_STREAM),
)
"""TIMERS must not end before what the journal has copied from it."""

_OPTIONAL: Final = frozenset(
    {subjects.ARCHIVE_STREAM, subjects.PARKED_STREAM, PAYLOADS_STREAM, subjects.ACCESS_LOG_STREAM}
)
NEVER_COPIED: Final = frozenset({subjects.bucket_stream(subjects.OPERATION_KEYS_BUCKET)})
"""A copy of a key that outlives an erasure would undo it (docs/adr/0076)."""
LAST_RESTORED: Final = subjects.DELIVERIES_STREAM
"""Restored when all else is done. Services of versions that know no mark of a restore don't start without it."""

_FIRST_RESTORED: Final = (subjects.TIMERS_STREAM, JOURNAL)


def restore_order(names: tuple[str, ...]) -> list[str]:
    """Return the streams of a backup in the order in which they are restored, without `LAST_RESTORED`.

    TIMERS comes first, because the journal copies from it; the archive comes after the journal, from which it copies.
    """
    first = [name for name in _FIRST_RESTORED if name in names]
    return first + [name for name in names if name not in first and name != LAST_RESTORED]


def backup_order() -> list[PlannedStream]:
    """Return all streams that opstream makes, but for `NEVER_COPIED`, in the order in which they are copied.

    One that has no place above comes last, with a tail: that is right for any bucket that no event refers to.
    """
    known = {planned.name for planned in _ORDER}
    others = [str(config.name) for config in streams(Sizing()) if config.name not in known | NEVER_COPIED]
    return [*_ORDER, *(PlannedStream(name=name, has_tail=True) for name in others)]


def required_streams() -> frozenset[str]:
    """Return the streams without which no service works; the others are there if they were asked for."""
    return frozenset(planned.name for planned in _ORDER) - _OPTIONAL
