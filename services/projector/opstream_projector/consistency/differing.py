"""What makes an entry of the view right or wrong. Pure; `now` is a parameter. Callers: `rebuild.py`, `verify.py`."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from opstream_journal.stores.snapshot_bulk import Snapshot, encode_snapshot
from opstream_projector.projection.snapshot_fold import lifetime
from opstream_schemas.operation.fold import Operation

_MARGIN: Final = 5.0
"""Seconds by which our clock and the broker's may differ, and by which it rounds when it lets an entry go."""
_TEXT: Final = 80
"""Characters of a value that are shown."""


class Difference(msgspec.Struct, frozen=True):
    """How one entry of the view differs from the journal."""

    operation_id: str
    what: str

    def __str__(self) -> str:
        return f"{self.operation_id}: {self.what}"


def is_over(operation: Operation, now: datetime) -> bool:
    """Whether the view need not hold the operation any more, so that it is right without an entry.

    That of an operation that is open goes a retention after its deadline, whatever else happens (docs/adr/0016).
    """
    seconds = lifetime(operation, now)
    if not operation.is_terminal:
        seconds -= max(0.0, now.timestamp() - operation.deadline.timestamp())
    return seconds <= _MARGIN


def is_same(snapshot: Snapshot, operation: Operation) -> bool:
    """Whether the entry says exactly what the fold gives."""
    # Other bytes may say the same, as when another version has written a field's default.
    return snapshot.data == encode_snapshot(operation) or snapshot.operation == operation


def is_further(snapshot: Snapshot, operation: Operation) -> bool:
    """Whether the entry says that it has seen more of the operation, by whichever count."""
    stored = snapshot.operation
    return stored is not None and (
        stored.position > operation.position or stored.stream_sequence > operation.stream_sequence
    )


def describe(snapshot: Snapshot | None, operation: Operation | None) -> str:
    """How they differ, for a person: one line. Without an operation the journal knows nothing of it."""
    if operation is None:
        return "in the view, and not in the journal"
    if snapshot is None:
        return f"missing in the view, {operation.status} in the journal (position {operation.position})"
    stored = snapshot.operation
    if stored is None:
        return f"the entry is {snapshot.problem}; {operation.status} in the journal (position {operation.position})"
    wanted, found = _fields(operation), _fields(stored)
    names = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
    said = (f"{name}: journal {_text(wanted, name)}, view {_text(found, name)}" for name in names)
    return "; ".join(said)


def _fields(operation: Operation) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.json.decode(encode_snapshot(operation))
    return fields


def _text(fields: dict[str, Any], name: str) -> str:
    if name not in fields:
        return "nothing"
    text = msgspec.json.encode(fields[name]).decode()
    return text if len(text) <= _TEXT else f"{text[:_TEXT]}…"
