"""What `opstream run`, `status`, `cancel` and `events` do: the client's calls, shown. Called by `operate`.

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
    OperationFailed,
    OperationsClient,
    OperationsError,
    ServiceUnavailable,
    WaitTimeout,
    new_operation_id,
)
from opstream.terminal.console import Failure, is_coloured, printable, room
from opstream.terminal.event_row import HEADING, row
from opstream.terminal.operation_display import Display, make_display
from opstream_schemas.operation.fold import Status
from opstream_schemas.status_monitor import StatusMonitor

CANCELED: Final = 3
TIMED_OUT: Final = 124
INTERRUPTED: Final = 130

_PATIENCE: Final = 30.0
"""Seconds in which the service has to answer a command; while an operation is followed it may be away for longer."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """`opstream run`."""

    target: str
    url: str
    action_input: bytes
    """JSON."""
    operation_id: str | None
    callback: str = ""
    """Where the outcome is to be delivered; empty for nowhere."""
    timeout: float | None
    """Seconds to follow; None for as long as it takes."""
    is_detached: bool


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """`opstream status`."""

    operation_id: str
    url: str
    is_waiting: bool
    timeout: float | None
    """As in `Run`."""


class Cancel(msgspec.Struct, frozen=True, kw_only=True):
    """`opstream cancel`."""

    operation_id: str
    url: str
    reason: str
    is_waiting: bool
    timeout: float | None
    """As in `Run`."""


class Events(msgspec.Struct, frozen=True, kw_only=True):
    """`opstream events`."""

    operation_id: str
    url: str
    is_following: bool
    is_json: bool


def run(settings: Run) -> None:
    """Submit an action, follow its operation, and print its result.

    Raises:
        Failure: with one of the exit statuses above.
        click.UsageError: the target or the id can't be meant.
    """
    operation_id = settings.operation_id or new_operation_id()
    again = f"run it again with --operation-id {operation_id}"
    with _session(settings.url, hint=f"it may have been submitted: to find out, {again}") as (client, display):
        try:
            operation = client.submit(
                settings.target,
                msgspec.Raw(settings.action_input),
                operation_id=operation_id,
                headers={"Operation-Callback": settings.callback} if settings.callback else None,
                timeout=min(_PATIENCE, settings.timeout or _PATIENCE),
            )
        except ServiceUnavailable as error:
            raise Failure(f"{error.trouble}: {again}, which is safe") from error
        if settings.is_detached:
            _print(operation.monitor)
            return
        click.echo(f"operation {operation.id} of {printable(settings.target)}", err=True)
        with _following(operation.id, settings.url), display:
            display.show(operation.monitor)
            result = client.result(
                operation,
                msgspec.Raw,
                timeout=settings.timeout,
                on_change=lambda changed: display.show(changed.monitor),
            )
        _print(result)


def status(settings: Look) -> None:
    """Print the status monitor of an operation, now or once it has ended; then its end decides the exit status.

    Raises:
        Failure, click.UsageError: as `run`.
    """
    with _session(settings.url) as (client, display):
        operation = client.status(settings.operation_id, timeout=_PATIENCE)
        if not settings.is_waiting:
            _print(operation.monitor)
            return
        ended = _wait(client, display, operation, settings.url, settings.timeout)
        _print(ended.monitor)
        if ended.status is Status.FAILED:
            raise OperationFailed(ended)
        if ended.status is Status.CANCELED:
            raise OperationCanceled(ended, "")


def cancel(settings: Cancel) -> None:
    """Ask an operation to stop, and print its status monitor.

    Raises:
        Failure, click.UsageError: as `run`; also if it was waited for and ended otherwise.
    """
    with _session(settings.url) as (client, display):
        operation = client.cancel(settings.operation_id, reason=settings.reason, timeout=_PATIENCE)
        if settings.is_waiting:
            operation = _wait(client, display, operation, settings.url, settings.timeout)
        _print(operation.monitor)
        if settings.is_waiting and operation.status is not Status.CANCELED:
            raise Failure(f"operation {operation.id} ended as {operation.status} before it could be canceled")


def events(settings: Events) -> None:
    """Print the events of an operation: a table on a terminal, otherwise one CloudEvent per line.

    Raises:
        Failure, click.UsageError: as `run`.
    """
    is_table = sys.stdout.isatty() and not settings.is_json
    with _session(settings.url) as (client, _):
        patience = None if settings.is_following else _PATIENCE
        found = client.events(settings.operation_id, follow=settings.is_following, timeout=patience)
        for number, event in enumerate(found):
            if not is_table:
                click.echo(_line(event.stored))
                continue
            if not number:
                click.echo(HEADING)
            is_on = is_coloured(sys.stdout)
            line = row(event.position, event.time, event.name, event.data, is_on=is_on, room=room(sys.stdout))
            click.echo(line, color=is_on or None)


def _wait(
    client: OperationsClient, display: Display, operation: Operation, url: str, timeout: float | None
) -> Operation:
    with _following(operation.id, url), display:
        display.show(operation.monitor)
        return client.wait(operation, timeout=timeout, on_change=lambda changed: display.show(changed.monitor))


@contextlib.contextmanager
def _session(url: str, *, hint: str = "") -> Iterator[tuple[OperationsClient, Display]]:
    """A client and a display, and what its errors and Ctrl-C mean for a command; `hint` is for the latter."""
    display = make_display(sys.stderr, time.monotonic, lambda: datetime.now(UTC))
    try:
        with OperationsClient(url, on_retry=display.trouble) as client:
            yield client, display
    except InvalidRequest as error:
        raise click.UsageError(str(error)) from error
    except OperationCanceled as error:
        raise Failure(printable(str(error)), status=CANCELED) from error
    except OperationsError as error:
        raise Failure(printable(str(error))) from error
    except KeyboardInterrupt:
        click.echo(f"interrupted{f'; {hint}' if hint else ''}", err=True)
        sys.exit(INTERRUPTED)


@contextlib.contextmanager
def _following(operation_id: str, url: str) -> Iterator[None]:
    """An operation that goes on, whatever becomes of whoever follows it."""
    place = [] if url == DEFAULT_URL or "@" in url else ["--url", url]  # a password is not for logs
    status_again = shlex.join(["opstream", "status", operation_id, "--wait", *place])
    stop = shlex.join(["opstream", "cancel", operation_id, *place])
    hint = f"operation {operation_id} goes on: follow it with '{status_again}', cancel it with '{stop}'"
    try:
        yield
    except WaitTimeout as error:
        state = error.operation.status if error.operation else "not known"
        raise Failure(f"the time is up, and the status is {state}; {hint}", status=TIMED_OUT) from error
    except KeyboardInterrupt:
        click.echo(f"interrupted; {hint}", err=True)
        sys.exit(INTERRUPTED)


def _print(value: StatusMonitor | msgspec.Raw) -> None:
    document = msgspec.json.encode(value)
    click.echo(msgspec.json.format(document, indent=2).decode() if sys.stdout.isatty() else _line(document))


def _line(document: bytes) -> str:
    # Bytes that are left as they are can be checked against the hash of the next event.
    is_line = b"\n" not in document and b"\r" not in document
    return (document if is_line else msgspec.json.format(document, indent=-1)).decode()
