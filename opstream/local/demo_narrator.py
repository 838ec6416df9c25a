"""How the demo tells what it does: requests, answers, statuses, histories. Called by `demo` only."""

from __future__ import annotations

import shlex
import textwrap
import time
from collections.abc import Sequence
from typing import IO, Any, Final

import click
import httpx
import msgspec

from opstream.terminal.console import coloured, line_width, supports_colour
from opstream.terminal.event_row import HEADING, event_row
from opstream_journal import Journal, connect
from opstream_schemas.events import RecordedEvent

_HEADERS: Final = ("Operation-Location", "Retry-After", "x-ms-error-code")
_CONNECT_TIMEOUT: Final = 10.0
_INDENT: Final = "   "
_HANGING: Final = 12
"""Columns that `opstream audit` takes for names."""
_STATUS_COLOURS: Final = {"Succeeded": "green", "Failed": "red", "Canceled": "yellow"}


class DemoNarrator:
    """Prints to one stream; colours on a terminal only."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._is_on = supports_colour(stream)
        columns = line_width(stream)
        self._room = None if columns is None else columns - len(_INDENT)
        self._chapters = 0

    def chapter(self, title: str) -> None:
        """Begin a part."""
        self._chapters += 1
        self._line()
        self._line(coloured(f"== {self._chapters}. {title}", "cyan", is_on=self._is_on, is_bold=True))

    def note(self, text: str) -> None:
        """Something that is neither request nor answer."""
        self._line(coloured(f"   {text}", "bright_black", is_on=self._is_on))

    def command(self, *words: str) -> None:
        """A command that is being run."""
        self._line()
        self.note(f"$ {shlex.join(words)}")

    def quote(self, line: str) -> None:
        """A line that a command has printed."""
        room = 1 + max(len(line), 1) if self._room is None else self._room
        for part in textwrap.wrap(line, room - 1, subsequent_indent=" " * _HANGING) or [""]:
            self._line(f"{_INDENT}{part}".rstrip())

    def request(self, method: str, path: str, body: dict[str, Any]) -> None:
        """A request that is being sent."""
        self._line()
        self._line(coloured(f"-> {method} {path}", None, is_on=self._is_on, is_bold=True))
        self._json(msgspec.json.encode(body))

    def response(self, answer: httpx.Response) -> None:
        """An answer, with the headers that matter."""
        colour = "green" if answer.is_success else "red"
        self._line(coloured(f"<- {answer.status_code} {answer.reason_phrase}", colour, is_on=self._is_on))
        for name in _HEADERS:
            if name in answer.headers:
                self._line(f"   {name}: {answer.headers[name]}")
        self._json(answer.content)

    def poll(self, path: str, before: dict[str, Any], answer: httpx.Response) -> None:
        """A look at the status monitor: what changed since `before`, the monitor seen last."""
        monitor = answer.json()
        status = self._status(monitor)
        change = status if monitor["status"] == before["status"] else f"{self._status(before)} -> {status}"
        retry_after = answer.headers.get("Retry-After")
        wait = f" (Retry-After: {retry_after})" if retry_after else ""
        self._line(f"-> GET {path}")
        self._line(f"<- {answer.status_code} {change}{_progress(monitor)}{wait}")
        if "result" in monitor or "error" in monitor:
            self._json(answer.content)

    async def history(self, broker: str, operations: Sequence[str]) -> None:
        """The events of operations, read from the stream itself.

        Raises:
            JournalError: the broker did not give them.
        """
        link = await connect([broker], "opstream-demo", connect_timeout=_CONNECT_TIMEOUT)
        try:
            journal = Journal(link, max_msg_size=-1, clock=time.monotonic)
            await journal.start()
            for operation_id in operations:
                self._table(operation_id, await journal.events(operation_id))
        finally:
            await link.close()

    def end(self, seconds: float) -> None:
        """How it ended, and what to do next."""
        self._line()
        self._line(f"Done in {seconds:.1f} s; everything was stopped and removed.")
        self._line("Next: 'opstream up' ('make up' in the repository) keeps it running, for you to call.")

    def _status(self, monitor: dict[str, Any]) -> str:
        status: str = monitor["status"]
        return coloured(status, _STATUS_COLOURS.get(status), is_on=self._is_on, is_bold=True)

    def _table(self, operation_id: str, events: Sequence[RecordedEvent]) -> None:
        self._line()
        self._line(coloured(f"   operation {operation_id}", None, is_on=self._is_on, is_bold=True))
        self._line(f"   {HEADING}")
        for event in events:
            name = event.data.name if event.data else event.type
            shown = event_row(event.position, event.time, name, event.data, is_on=self._is_on, room=self._room)
            self._line(textwrap.indent(shown, _INDENT))

    def _json(self, content: bytes) -> None:
        for line in msgspec.json.format(content, indent=2).decode().splitlines():
            self._line(f"   {line}")

    def _line(self, text: str = "") -> None:
        click.echo(text, file=self._stream, color=self._is_on)


def _progress(monitor: dict[str, Any]) -> str:
    if "finishedAt" in monitor or "percentComplete" not in monitor:
        return ""
    return f", {monitor['percentComplete']:.0f} % {monitor.get('message', '')}"
