"""The commands that have modules of their own, and how `opstream --help` lists all of them. Caller: `cli`, which holds
those that start the services."""

from __future__ import annotations

import errno
import sys
from typing import Any, Final

import click

from . import auditors, operate, parked, rebuild_command, verify_command, webhooking
from .console import Failure

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
    """A group that lists its commands by what they are for, and tells of a full disk in one line."""

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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Write the sections, each command with one line."""
        room = formatter.width - _NAME - 6
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(f"{name:<{_NAME}}", self.commands[name].get_short_help_str(room)) for name in names]
                )
