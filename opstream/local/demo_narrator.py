"""The output of the demo: requests, responses, statuses, events."""

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
"""Columns of the names that `opstream audit` prints."""
_STATUS_COLOURS: Final = {"Succeeded": "green", "Failed": "red", "Canceled": "yellow"}


class DemoNarrator:
    """Prints to a stream, with colours on a terminal."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._has_colour = supports_colour(stream)
        width = line_width(stream)
        self._width = None if width is None else width - len(_INDENT)
        self._chapters = 0

    def chapter(self, title: str) -> None:
        """Print the title of a chapter."""
        self._chapters += 1
        self._line()
        self._line(coloured(f"== {self._chapters}. {title}", "cyan", has_colour=self._has_colour, is_bold=True))

    def note(self, text: str) -> None:
        """Print something that is neither request nor response."""
        self._line(coloured(f"   {text}", "bright_black", has_colour=self._has_colour))

    def command(self, *words: str) -> None:
        """Print a command that is about to run."""
        self._line()
        self.note(f"$ {shlex.join(words)}")

    def quote(self, line: str) -> None:
        """Print a line of the output of a command."""
        width = 1 + max(len(line), 1) if self._width is None else self._width
        for part in textwrap.wrap(line, width - 1, subsequent_indent=" " * _HANGING) or [""]:
            self._line(f"{_INDENT}{part}".rstrip())

    def request(self, method: str, path: str, body: dict[str, Any]) -> None:
        """Print a request that is about to be sent."""
        self._line()
        self._line(coloured(f"-> {method} {path}", None, has_colour=self._has_colour, is_bold=True))
        self._json(msgspec.json.encode(body))

    def response(self, response: httpx.Response) -> None:
        """Print a response, with some of its headers."""
        colour = "green" if response.is_success else "red"
        self._line(coloured(f"<- {response.status_code} {response.reason_phrase}", colour, has_colour=self._has_colour))
        for name in _HEADERS:
            if name in response.headers:
                self._line(f"   {name}: {response.headers[name]}")
        self._json(response.content)

    def poll(self, path: str, previous: dict[str, Any], response: httpx.Response) -> None:
        """Print a poll of the status monitor: what changed since the previous one."""
        monitor = response.json()
        status = self._status(monitor)
        change = status if monitor["status"] == previous["status"] else f"{self._status(previous)} -> {status}"
        retry_after = response.headers.get("Retry-After")
        wait = f" (Retry-After: {retry_after})" if retry_after else ""
        self._line(f"-> GET {path}")
        self._line(f"<- {response.status_code} {change}{_progress(monitor)}{wait}")
        if "result" in monitor or "error" in monitor:
            self._json(response.content)

    async def history(self, broker: str, operations: Sequence[str]) -> None:
        """Print the events of operations, read from the stream.

        Raises:
            JournalError: the broker can't be reached or refuses.
        """
        connection = await connect([broker], "opstream-demo", connect_timeout=_CONNECT_TIMEOUT)
        try:
            journal = Journal(connection, max_msg_size=-1, clock=time.monotonic)
            await journal.start()
            for operation_id in operations:
                self._table(operation_id, await journal.events(operation_id))
        finally:
            await connection.close()

    def end(self, seconds: float) -> None:
        """Print how long the demo took, and what to do next."""
        self._line()
        self._line(f"Done in {seconds:.1f} s; everything was stopped and removed.")
        self._line("Next: 'opstream up --actions bookshelf.actions' ('make up' in the repository) keeps it running,")
        self._line("with the console at http://127.0.0.1:8080/console.")

    def _status(self, monitor: dict[str, Any]) -> str:
        status: str = monitor["status"]
        return coloured(status, _STATUS_COLOURS.get(status), has_colour=self._has_colour, is_bold=True)

    def _table(self, operation_id: str, events: Sequence[RecordedEvent]) -> None:
        self._line()
        self._line(coloured(f"   operation {operation_id}", None, has_colour=self._has_colour, is_bold=True))
        self._line(f"   {HEADING}")
        for event in events:
            name = event.data.name if event.data else event.type
            shown = event_row(
                event.position, event.time, name, event.data, has_colour=self._has_colour, width=self._width
            )
            self._line(textwrap.indent(shown, _INDENT))

    def _json(self, content: bytes) -> None:
        for line in msgspec.json.format(content, indent=2).decode().splitlines():
            self._line(f"   {line}")

    def _line(self, text: str = "") -> None:
        click.echo(text, file=self._stream, color=self._has_colour)


def _progress(monitor: dict[str, Any]) -> str:
    if "finishedAt" in monitor or "percentComplete" not in monitor:
        return ""
    return f", {monitor['percentComplete']:.0f} % {monitor.get('message', '')}"
