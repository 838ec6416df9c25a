"""What `run`, `status`, `cancel` and `events` share: a client whose errors are a command's, and printed results.

Results and histories go to stdout, everything else to stderr. Exit statuses: 0 succeeded (or read, or canceled as
asked), 1 failed, refused or out of reach, 3 canceled, 124 still going on (as of timeout(1)), 130 interrupted.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import click
import msgspec

from opstream.cli.options.client import DEFAULT_URL
from opstream.client import (
    InvalidRequest,
    Operation,
    OperationCanceled,
    OperationsClient,
    OperationsError,
    WaitTimeout,
)
from opstream.terminal.console import CommandError, printable
from opstream.terminal.operation_display import OperationDisplay, make_operation_display
from opstream_schemas.status_monitor import StatusMonitor

EXIT_CANCELED: Final = 3
EXIT_TIMED_OUT: Final = 124
INTERRUPTED: Final = 130
RESPONSE_TIMEOUT: Final = 30.0
"""Seconds in which the service has to answer a command; while an operation is followed it may be away for longer."""


def wait(
    client: OperationsClient, display: OperationDisplay, operation: Operation, url: str, timeout: float | None
) -> Operation:
    with following(operation.id, url), display:
        display.show(operation.monitor)
        return client.wait(operation, timeout=timeout, on_change=lambda changed: display.show(changed.monitor))


@contextlib.contextmanager
def session(url: str, *, hint: str = "") -> Iterator[tuple[OperationsClient, OperationDisplay]]:
    """A client and a display, and what its errors and Ctrl-C mean for a command; `hint` is for the latter."""
    display = make_operation_display(sys.stderr, time.monotonic, lambda: datetime.now(UTC))
    try:
        with OperationsClient(url, on_retry=display.show_retry) as client:
            yield client, display
    except InvalidRequest as error:
        raise click.UsageError(str(error)) from error
    except OperationCanceled as error:
        raise CommandError(printable(str(error)), status=EXIT_CANCELED) from error
    except OperationsError as error:
        raise CommandError(printable(str(error))) from error
    except KeyboardInterrupt:
        click.echo(f"interrupted{f'; {hint}' if hint else ''}", err=True)
        sys.exit(INTERRUPTED)


@contextlib.contextmanager
def following(operation_id: str, url: str) -> Iterator[None]:
    """An operation that goes on, whatever becomes of whoever follows it."""
    place = [] if url == DEFAULT_URL or "@" in url else ["--url", url]  # a password is not for logs
    status_again = shlex.join(["opstream", "status", operation_id, "--wait", *place])
    stop = shlex.join(["opstream", "cancel", operation_id, *place])
    hint = f"operation {operation_id} goes on: follow it with '{status_again}', cancel it with '{stop}'"
    try:
        yield
    except WaitTimeout as error:
        state = error.operation.status if error.operation else "not known"
        raise CommandError(f"the time is up, and the status is {state}; {hint}", status=EXIT_TIMED_OUT) from error
    except KeyboardInterrupt:
        click.echo(f"interrupted; {hint}", err=True)
        sys.exit(INTERRUPTED)


def print_json(value: StatusMonitor | msgspec.Raw) -> None:
    document = msgspec.json.encode(value)
    click.echo(msgspec.json.format(document, indent=2).decode() if sys.stdout.isatty() else one_line(document))


def one_line(document: bytes) -> str:
    # Bytes that are left as they are can be checked against the hash of the next event.
    is_line = b"\n" not in document and b"\r" not in document
    return (document if is_line else msgspec.json.format(document, indent=-1)).decode()
