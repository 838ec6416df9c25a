"""A log record as one JSON object on one line, which no text in the record can end, split or add a member to.

The members are in `docs/running.md` (Logs). What a record has besides, given with `extra`, is a member of its own.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from typing import Any, ClassVar, Final, Protocol

LINE_LIMIT: Final = 32_768
"""Bytes of a line. `opstream up` and collectors of logs split longer ones, and then no part is JSON."""

_TEXT_LIMITS: Final = (8_192, 2_048, 512)
"""Characters of each text, tried in this order until the line fits. A character has up to 12 bytes as an escape."""
_MAX_FIELDS: Final = 32
_NAME_LIMIT: Final = 64
_RESERVED: Final = frozenset({"time", "level", "logger", "message", "service", "traceback"})
"""Members that `extra` can't set."""
_STANDARD: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})
"""Attributes of every record. `taskName` came with Python 3.12."""
_LARGEST: Final = 2**53
"""Readers of JSON keep whole numbers up to here; larger ones are written as texts."""

_LEVELS: Final = {number: logging.getLevelName(number).lower() for number in range(0, 51, 10)}


class LogEntry(Protocol):
    """One line of a `BatchRecord`."""

    @property
    def created(self) -> float:
        """Unix seconds."""
        ...

    def text(self) -> str:
        """Return the message, as one line for people."""
        ...

    def members_json(self) -> str:
        """Return the members of the JSON line besides those that all lines have, as ASCII between the braces."""
        ...


class BatchRecord(logging.LogRecord):
    """Several lines of one logger and one level as one record.

    What `logging` does for a record costs ten times as much as its line. A service that writes a line for each request
    collects them, and logs them in one go. A handler that knows nothing of it writes the messages, a line each.
    """

    def __init__(self, name: str, level: int, entries: list[LogEntry]) -> None:
        super().__init__(name, level, "", 0, "%s", ("\n".join(entry.text() for entry in entries),), None)
        self.entries = entries


class ActiveSpan:
    """Where lines learn the ids of the active span. Tracing sets it while it is on (`traces/otel.py`)."""

    ids: ClassVar[Callable[[], Mapping[str, str]] | None] = None
    """Returns the members `trace_id` and `span_id`; nothing without an active span."""


class JsonLogFormatter(logging.Formatter):
    """Formats a record as one line of ASCII.

    Args:
        service: returns the name of the service that logs now; empty for none.
    """

    def __init__(self, service: Callable[[], str] = str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Format the record. An author's argument or field that raises costs its own text only."""
        if isinstance(record, BatchRecord):
            return "\n".join(self._entry(record, entry) for entry in record.entries)
        members: dict[str, object] = {
            **self._head(record, record.created, _message(record)),
            **_fields(record),
        }
        if ActiveSpan.ids is not None:
            members.update(ActiveSpan.ids())
        if record.exc_info and record.exc_info[0] is not None:
            members["traceback"] = _traceback(self, record)
        elif record.stack_info:
            members["traceback"] = str(record.stack_info)
        return encode_line(members)

    def _entry(self, record: logging.LogRecord, entry: LogEntry) -> str:
        # As `encode_line` does it, at a third of its cost.
        service = self._service()
        of_service = f'"service":{encode_text(service)},' if service else ""
        return (
            f'{{"time":"{utc_time(entry.created)}","level":"{_LEVELS[record.levelno]}",'
            f'"logger":{encode_text(record.name)},"message":{encode_text(entry.text())},'
            f"{of_service}{entry.members_json()}}}"
        )

    def _head(self, record: logging.LogRecord, created: float, message: str) -> dict[str, object]:
        service = self._service()
        return {
            "time": utc_time(created),
            "level": _LEVELS.get(record.levelno) or _text(record.levelname).lower(),
            "logger": _text(record.name),
            "message": message,
            **({"service": service} if service else {}),
        }


def encode_line(members: Mapping[str, object]) -> str:
    """Return JSON of at most `LINE_LIMIT` bytes, without a line break in it. Long texts are cut in the middle."""
    line = _encode(members)
    for limit in _TEXT_LIMITS:
        if len(line) <= LINE_LIMIT:
            return line
        line = _encode({name: _cut(value, limit) for name, value in members.items()})
    if len(line) > LINE_LIMIT:  # many long fields
        line = _encode({name: _cut(value, limit) for name, value in members.items() if name in _RESERVED})
    return line


def encode_text(text: str) -> str:
    """Return a text that has UTF-8 as a string of JSON, in ASCII and without control characters."""
    return encode_basestring_ascii(text).replace("\x7f", "\\u007f")


def utc_time(created: float) -> str:
    """Return Unix seconds as RFC 3339 in UTC, with milliseconds."""
    seconds = int(created)
    return f"{_utc_second(seconds)}.{int((created - seconds) * 1000):03d}Z"


@lru_cache(2)
def _utc_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _encode(members: Mapping[str, object]) -> str:
    # ASCII with escapes: no control character, no other line break, nothing that turns the direction of text.
    return json.dumps(members, ensure_ascii=True, separators=(",", ":")).replace("\x7f", "\\u007f")


def _cut(value: object, limit: int) -> object:
    if not isinstance(value, str) or len(value) <= limit:
        return value
    half = limit // 2
    return f"{value[:half]} … {value[-half:]}"  # the end of a traceback says most


def _message(record: logging.LogRecord) -> str:
    try:
        return _text(record.getMessage())
    except Exception as error:  # noqa: BLE001 - arguments that don't fit, or an author's `__str__`
        return f"{_text(record.msg)} (its arguments can't be shown: {type(error).__name__})"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    given = vars(record)
    if len(given) <= len(_STANDARD) and _STANDARD.issuperset(given):
        return {}
    names = [name for name in given if isinstance(name, str) and name not in _STANDARD]
    fields = {}
    for name in names[:_MAX_FIELDS]:
        shown = _text(name)[:_NAME_LIMIT]
        fields[shown + "_" if shown in _RESERVED else shown] = _value(given[name])
    return fields


def _value(value: object) -> object:
    if value is None or isinstance(value, bool):
        return value
    if type(value) is int and -_LARGEST <= value <= _LARGEST:
        return value
    if type(value) is float and value - value == 0:  # neither infinite nor no number, which JSON has not
        return value
    return _text(value)


def _text(value: object) -> str:
    """Return any object as a text that has UTF-8. An author's class may raise in `__str__`, or derive from `str`."""
    try:
        text = str.__str__(value) if isinstance(value, str) else str(value)
        return text if text.isascii() else text.encode("utf-8", "replace").decode()
    except Exception as error:  # noqa: BLE001 - as above
        return f"({type(value).__name__} can't be shown: {type(error).__name__})"


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    try:
        exc_info: Any = record.exc_info
        return _text(formatter.formatException(exc_info))
    except Exception as error:  # noqa: BLE001 - an author's exception may raise in any method
        return f"(it can't be shown: {type(error).__name__})"
