"""The commands that have modules of their own, and how `opstream --help` lists all of them. Caller: `cli`, which holds
those that start the services."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import click
from click.exceptions import NoArgsIsHelpError

from opstream.terminal.console import Failure, printable

from .commands import auditors, operate, parked, rebuild_command, verify_command
from .commands import webhooks as webhooking

COMMANDS: Final = (
    *operate.COMMANDS,
    operate.fail,
    parked.parked,
    *auditors.COMMANDS,
    rebuild_command.rebuild,
    *verify_command.COMMANDS,
    *webhooking.COMMANDS,
)
SECTIONS: Final = {
    "Try and develop": ("demo", "up", "schemas"),
    "Use a running API": ("run", "status", "cancel", "events"),
    "Services, for production": ("broker", "provision", "api", "runner", "projector", "webhooks"),
    "The history of all operations": ("replay", "audit", "export", "verify", "keygen"),
    "Operate": ("rebuild", "fail", "parked", "deliveries", "redeliver"),
}
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NAME: Final = 10
"""Columns of the longest name."""


class Sections(click.Group):
    """A group that lists its commands by what they are for, and tells what is wrong in one line: how it is called, with
    exit status 2, and that a disk is full."""

    def main(self, *args: Any, **extra: Any) -> Any:  # noqa: ANN401 - as click has it
        """Run a command to its end."""
        try:
            return super().main(*args, **extra)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            where = error.filename or "standard output"
            Failure(f"{where} takes no more ({error.strerror}): make room there, then run it again").show()
            sys.exit(1)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401 - as click has it
    ) -> click.Context:
        """Read the options before the command."""
        with _in_one_line():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click has it
        """Read the command's own options, and run it."""
        with _in_one_line():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Write the sections, each command with one line."""
        room = formatter.width - _NAME - 6
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(f"{name:<{_NAME}}", self.commands[name].get_short_help_str(room)) for name in names]
                )


@contextmanager
def _in_one_line() -> Iterator[None]:
    try:
        yield
    except NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "opstream"
        told = printable(error.format_message().rstrip("."))
        raise Failure(f"{told} (see '{command} --help')", status=error.exit_code) from error
