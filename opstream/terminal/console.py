"""What a terminal gets and a file does not: colours. Also the one form of an error message.

Called by the commands, their displays, the supervisor, the demo and the logs. NO_COLOR (any value) turns colours off
everywhere.
"""

from __future__ import annotations

import os
from typing import IO, Any, Final

import click

from opstream_schemas.text import one_line

EXIT_INTERRUPTED: Final = 130
"""Exit status after Ctrl-C, as shells have it."""

COLOURS: Final = ("cyan", "green", "magenta", "yellow", "blue")


class CommandError(click.ClickException):
    """Ends a command with one line on stderr, which says what to do next, and an exit status, 1 by default."""

    def __init__(self, message: str, *, status: int = 1) -> None:
        super().__init__(message)
        self.exit_code = status  # type: ignore[misc] # click reads it from the instance

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the line."""
        click.echo(f"opstream: error: {self.format_message()}", file=file, err=file is None)


def supports_colour(stream: IO[Any]) -> bool:
    """Whether colours make sense on a stream: it is a terminal and nobody asked for none."""
    return stream.isatty() and "NO_COLOR" not in os.environ


def terminal_width(stream: IO[Any]) -> int:
    """Columns of the terminal that a stream is; 80 if it does not tell, or is none."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def line_width(stream: IO[Any]) -> int | None:
    """Columns that a line should not exceed; None where no person looks, so that any length is fine."""
    return terminal_width(stream) if stream.isatty() else None


def printable(text: str) -> str:
    """A text of somebody else's in one line, without what would move the cursor or recolour a terminal."""
    return one_line(text)


def coloured(text: str, colour: str | None, *, is_on: bool, is_bold: bool = False) -> str:
    """The text, in a colour if that makes sense."""
    return click.style(text, fg=colour, bold=is_bold or None) if is_on and (colour or is_bold) else text
