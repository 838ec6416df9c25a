"""Lines of several processes as JSON on one stream: theirs as they are, all other text in a line of JSON (ADR 0049)."""

from __future__ import annotations

import json
import os
import time
from typing import IO, Any, Final

from opstream.terminal.logs import END_LOGGER
from opstream_schemas.logs.json_formatter import encode_line, utc_time

ERROR_PREFIX: Final = "opstream: error: "
"""Begins the line of an error with which a command of ours ends."""

_MEMBERS: Final = ("time", "level", "logger", "message", "service")
_SERVICES: Final = {"hub": frozenset({"hub", "api", "projector", "webhooks"})}
"""Names that lines of one process may have; of all others only its own."""
_BROKER_LEVELS: Final = {
    "[TRC]": "debug",
    "[DBG]": "debug",
    "[INF]": "info",
    "[WRN]": "warning",
    "[ERR]": "error",
    "[FTL]": "critical",
}


class LineStream:
    """A stream of lines. If its reader closes it (`… | head -1`, a closed terminal), the output ends, nothing else."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream: IO[str] | None = stream

    def write(self, line: str) -> None:
        """Write a line."""
        if self._stream is None:
            return
        try:
            print(line, file=self._stream, flush=True)
        except OSError:
            # The interpreter flushes the stream once more at its end, which must not fail.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            self._stream = None


class JsonOutput:
    """A line of JSON for each line of the processes.

    A line that a process has logged as JSON passes as it is, if it names that process. What it prints otherwise is the
    message of a line whose logger is `output`, so it can't pass for a line of another process.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._lines = LineStream(stream)

    def line(self, name: str, text: str) -> None:
        """Print a line of one process."""
        members = _decode(text)
        if members is not None and members["service"] in _SERVICES.get(name, {name}):
            self._lines.write(text)
            return
        level, logger = "info", "output"
        if name == "broker":
            _, found, rest = text.partition(" [")
            level = _BROKER_LEVELS.get(f"[{rest[:4]}", level)
            if found and rest[:4] and f"[{rest[:4]}" in _BROKER_LEVELS:
                logger, text = "nats-server", rest[4:].strip()
        elif name == "opstream":
            logger = "opstream.up"
        self._write(level, logger, text, name)

    def plain(self, text: str, *, is_bold: bool = False) -> None:  # noqa: ARG002 - as of the other output
        """Print a line that belongs to no process."""
        self._write("info", "opstream.up", text, "opstream")

    def _write(self, level: str, logger: str, text: str, name: str) -> None:
        members = {"time": utc_time(time.time()), "level": level, "logger": logger, "message": text, "service": name}
        self._lines.write(encode_line(members))


def end_error_text(line: str) -> str:
    """Return the error with which a process of ours ended, if this line says it; otherwise an empty text."""
    if line.startswith(ERROR_PREFIX):
        return line.removeprefix(ERROR_PREFIX)
    members = _decode(line)
    return str(members["message"]) if members is not None and members["logger"] == END_LOGGER else ""


def _decode(line: str) -> dict[str, Any] | None:
    """Return the members of a line of JSON that a process of ours has logged; None for any other text."""
    if not line.startswith('{"time":') or not line.isascii():
        return None
    try:
        found = json.loads(line, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError):  # no JSON, or brackets without end
        return None
    is_ours = isinstance(found, dict) and all(isinstance(found.get(name), str) for name in _MEMBERS)
    return found if is_ours else None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a member that is there twice: readers differ in which of them they take."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a member is repeated")
    return found
