"""Events as columns of an Arrow table, for Parquet files. It needs pyarrow, so import it inside of functions only.

Values are taken from the data of an event by the names of its members, not by its type: events of newer versions fill
the columns that they share with this version. A column without a value is null.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
import pyarrow as pa

from opstream_schemas.events import Instant, digest

from .event_reader import StoredEvent

_MICROSECONDS: Final = pa.timestamp("us", tz="UTC")

SCHEMA: Final = pa.schema(
    [
        pa.field("sequence", pa.int64(), nullable=False),
        pa.field("stored_at", _MICROSECONDS, nullable=False),
        pa.field("operation_id", pa.string(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("resource", pa.string(), nullable=False),
        pa.field("action", pa.string(), nullable=False),
        pa.field("event", pa.string(), nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("time", _MICROSECONDS, nullable=False),
        pa.field("previous_hash", pa.string(), nullable=False),
        pa.field("hash", pa.string(), nullable=False),
        ("resource_id", pa.string()),
        ("action_version", pa.int32()),
        ("deadline", _MICROSECONDS),
        ("caller", pa.string()),
        ("client_id", pa.string()),
        ("client_address", pa.string()),
        ("attempt", pa.int32()),
        ("runner", pa.string()),
        ("percent", pa.float64()),
        ("message", pa.string()),
        ("error_code", pa.string()),
        ("error_message", pa.string()),
        ("error_target", pa.string()),
        ("retry_at", _MICROSECONDS),
        ("counted", pa.bool_()),
        ("by", pa.string()),
        ("reason", pa.string()),
        pa.field("data", pa.string(), nullable=False),
    ]
)
"""`hash` is the SHA-256 of the stored bytes, which is the `previous_hash` of the operation's next event. `data` has the
bytes of the event's data, which is JSON."""


_Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
"""The range of the column. A foreign writer may store any number in the journal."""


class _ErrorMembers(msgspec.Struct):
    """The members of an error."""

    code: int | str | None = None
    message: str | None = None
    target: str | None = None


class _DataMembers(msgspec.Struct, rename="camel", gc=False):
    """The members that have columns, of all types of data."""

    resource_id: str | None = None
    action_version: _Int32 | None = None
    deadline: Instant | None = None
    caller: str | None = None
    client_id: str | None = None
    client_address: str | None = None
    attempt: _Int32 | None = None
    runner: str | None = None
    percent: float | None = None
    message: str | None = None
    retry_at: Instant | None = None
    counted: bool | None = None
    by: str | None = None
    reason: str | None = None
    error: _ErrorMembers | None = None


_decode: Final = msgspec.json.Decoder(_DataMembers).decode
_MEMBER_COLUMNS: Final = tuple(name for name in SCHEMA.names if name in _DataMembers.__struct_fields__)
_NO_MEMBERS: Final = _DataMembers()
_NO_ERROR: Final = _ErrorMembers()


class ParquetColumns:
    """Rows that are collected until they are written as one table."""

    def __init__(self) -> None:
        self._values: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
        self.size = 0
        """Bytes of the stored events."""

    def __len__(self) -> int:
        return len(self._values["sequence"])

    def add(self, stored_event: StoredEvent) -> None:
        """Add an event as a row."""
        message, envelope = stored_event
        *_, resource, action, event = message.subject.split(".")
        members = _decode_members(envelope.data)
        error = members.error or _NO_ERROR
        row = {
            "sequence": message.sequence,
            "stored_at": message.nanoseconds // 1_000,
            "operation_id": envelope.subject,
            "position": envelope.position,
            "resource": resource,
            "action": action,
            "event": event,
            "type": envelope.type,
            "id": envelope.id,
            "source": envelope.source,
            "time": envelope.time,
            "previous_hash": envelope.previoushash,
            "hash": digest(message.data),
            "error_code": None if error.code is None else str(error.code),
            "error_message": error.message,
            "error_target": error.target,
            "data": bytes(envelope.data).decode(),
        }
        values = self._values
        for name, value in row.items():
            values[name].append(value)
        for name in _MEMBER_COLUMNS:
            values[name].append(getattr(members, name))
        self.size += len(message.data)

    def table(self) -> pa.Table:
        """The rows as a table."""
        return pa.Table.from_pydict(self._values, schema=SCHEMA)


def _decode_members(data: msgspec.Raw) -> _DataMembers:
    try:
        return _decode(data)
    except (msgspec.MsgspecError, RecursionError):
        return _NO_MEMBERS  # foreign, or a newer version gave a member another type; the column `data` has it
