"""The `opstream` command: finds the module of a command, and prints errors in one line.

A module of `commands` is imported only when its command is called or its help is asked for, so that each process loads
what its own command needs: `opstream broker` loads no web framework.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

import click
from click.exceptions import NoArgsIsHelpError

from opstream._version import __version__
from opstream.cli.process_end import end_with_command
from opstream.local.processes import die_with_supervisor
from opstream.terminal.console import CommandError, printable
from opstream.terminal.standard_streams import protect_standard_streams

SECTIONS: Final = {
    "Try and develop": {
        "demo": "See the whole system at work; leaves nothing behind.",
        "up": "Run everything on this machine.",
        "schemas": "Write JSON Schemas and the AsyncAPI document of all events.",
    },
    "Use a running API": {
        "run": "Submit an action and follow its operation.",
        "schedule": "Have an action begin again and again.",
        "status": "Print the status of an operation.",
        "cancel": "Ask an operation to stop.",
        "signal": "Send an operation what it waits for.",
        "download": "Write a file of an operation to this machine.",
        "retry": "Do an operation again that failed or was canceled.",
        "events": "Print the history of an operation.",
        "list": "List operations: what runs, what failed, what waits.",
        "count": "Count operations: by action, code or caller.",
    },
    "Services, for production": {
        "broker": "Run the embedded NATS server.",
        "broker-config": "Write the configuration of a broker with a login for each role.",
        "provision": "Make what opstream needs on a broker, or compare it.",
        "api": "Serve HTTP.",
        "runner": "Execute actions.",
        "projector": "Keep the view up to date.",
        "webhooks": "Deliver outcomes over HTTP, signed and retried.",
        "hub": "Run api, projector and webhooks in one process.",
    },
    "The history of all operations": {
        "replay": "Print the history of all operations.",
        "audit": "Print the timeline of one operation.",
        "export": "Write the history of all operations as Parquet.",
        "verify": "Check the journal: against the view, or its hash chains.",
        "keygen": "Make a key for checkpoints.",
    },
    "Operate": {
        "top": "Watch what runs, waits, ends and fails, action by action.",
        "actions": "Show actions, their runners and what waits; pause them.",
        "doctor": "Find what is wrong around a running system, and what to do.",
        "backup": "Copy everything from the broker, while it works.",
        "restore": "Bring a backup to a broker.",
        "rebuild": "Bring the view in line with the journal.",
        "fail": "End an operation as failed.",
        "erase": "Destroy the key of a confidential operation.",
        "keys": "Make and rotate the keys of confidential operations.",
        "apikey": "Make, list and revoke the keys of callers.",
        "parked": "Show events that subscribers could not handle.",
        "deliveries": "Show the attempts to deliver outcomes.",
        "redeliver": "Send again what was not delivered.",
    },
}
"""The commands in the order of `opstream --help`. Each is a function of its own name in the module of that name,
with `_` for `-`."""
EPILOG: Final = (
    "Every option can also be set by the variable shown with it; lists are comma-separated there. On one machine: "
    "'opstream up'. In production: run provision once, then api, runner, projector and webhooks, as many as you like."
)
_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NAME_WIDTH: Final = max(len(name) for commands in SECTIONS.values() for name in commands)


class LazyGroup(click.Group):
    """A group that imports a command when it is needed, lists its commands by what they are for, and prints a usage
    error (exit status 2) and a full disk in one line."""

    def main(self, *args: Any, **extra: Any) -> Any:  # noqa: ANN401 - as in click
        """Run a command to its end."""
        protect_standard_streams()
        with end_with_command():
            try:
                return super().main(*args, **extra)
            except OSError as error:
                if error.errno not in _DISK_FULL:
                    raise
                where = error.filename or "standard output"
                text = f"{where} can't be written to ({error.strerror}): make room there, then run it again"
                CommandError(text).show()
                sys.exit(1)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401 - as in click
    ) -> click.Context:
        """Read the options before the command."""
        with _usage_errors_in_one_line():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as in click
        """Read the command's own options, and run it."""
        with _usage_errors_in_one_line():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """The names of the commands, sorted."""
        return sorted(name for commands in SECTIONS.values() for name in commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command. None if there is none of that name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(import_module(f"opstream.cli.commands.{name}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Write the sections, each command with one line."""
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:<{_NAME_WIDTH}}", text) for name, text in commands.items()])


@contextmanager
def _usage_errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "opstream"
        problem = printable(error.format_message().rstrip("."))
        raise CommandError(f"{problem} (see '{command} --help')", status=error.exit_code) from error


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, epilog=EPILOG
)
@click.version_option(__version__, message="%(prog)s %(version)s", prog_name="opstream")
def main() -> None:
    """Durable long-running operations behind plain HTTP, on NATS JetStream.

    Try it: 'opstream demo'. Use it: 'opstream up --actions YOUR_MODULE', then 'opstream run TARGET'.
    """
    die_with_supervisor()
