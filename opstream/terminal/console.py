"""Errors of commands, and what depends on the terminal: colours, width, printable text.

The variable NO_COLOR (any value) turns colours off everywhere (https://no-color.org).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import IO, Any, ClassVar, Final

import click

from opstream_schemas.text import escape_json, one_line

EXIT_INTERRUPTED: Final = 130
"""Exit status after Ctrl-C, as in shells."""

EXIT_SETBACK: Final = 3
"""Exit status of commands that find that the journal has lost events (docs/running.md)."""

PROCESS_COLOURS: Final = ("cyan", "green", "magenta", "yellow", "blue")
"""Colours that tell processes apart."""


class ErrorOutput:
    """Where the error goes with which a command ends: None for text on stderr. `logs.configure` sets it."""

    write: ClassVar[Callable[[str], None] | None] = None


class CommandError(click.ClickException):
    """Ends a command with an exit status, 1 by default, and one line on stderr, which says what to do next."""

    def __init__(self, message: str, *, status: int = 1) -> None:
        super().__init__(message)
        self.exit_code = status  # type: ignore[misc] # click reads it from the instance

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the line."""
        if file is None and ErrorOutput.write is not None:
            ErrorOutput.write(self.format_message())
            return
        lines = map(printable, self.format_message().split("\n"))
        click.echo("opstream: error: " + "\n".join(lines), file=file, err=file is None)


def supports_colour(stream: IO[Any]) -> bool:
    """Return True if a stream is a terminal and NO_COLOR is not set."""
    return stream.isatty() and "NO_COLOR" not in os.environ


def terminal_width(stream: IO[Any]) -> int:
    """Columns of the terminal; 80 if the stream is not a terminal, or its width is not known."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def line_width(stream: IO[Any]) -> int | None:
    """Columns that a line may have; None for no limit, if the stream is not a terminal."""
    return terminal_width(stream) if stream.isatty() else None


def printable(text: str) -> str:
    """A text of unknown origin as one line, without control characters, which could move the cursor of a terminal."""
    return one_line(text)


def shown_json(document: bytes) -> bytes:
    """JSON for stdout: as it is for a program; on a terminal with escapes for what could deceive the reader."""
    return escape_json(document.decode("utf-8", "replace")).encode() if sys.stdout.isatty() else document


def coloured(text: str, colour: str | None, *, has_colour: bool, is_bold: bool = False) -> str:
    """The text, in the colour or bold if `has_colour` is True, otherwise unchanged."""
    return click.style(text, fg=colour, bold=is_bold or None) if has_colour and (colour or is_bold) else text
