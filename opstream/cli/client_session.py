"""What `run`, `status`, `cancel` and `events` share: a client of the API, its errors as one line, and printed results.

Results and histories go to stdout, everything else to stderr. Exit statuses: 0 the operation succeeded (or was read, or
canceled as requested), 1 it failed, the request was refused or the service can't be reached, 3 canceled, 124 the time
of `--timeout` was over before the end or the first response (as of timeout(1)), 130 interrupted.

The client, with its HTTP library, is imported when a session begins: help and usage errors do not wait for it.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click
import msgspec

from opstream.terminal.console import EXIT_INTERRUPTED, CommandError, printable, shown_json
from opstream.terminal.operation_display import OperationDisplay, make_operation_display
from opstream.terminal.wait_notice import wait_notice
from opstream_schemas.errors import ErrorCode
from opstream_schemas.status_monitor import StatusMonitor
from opstream_schemas.urls import hide_credentials

from .options.client import DEFAULT_URL

if TYPE_CHECKING:
    from opstream.client import Operation, OperationsClient

EXIT_CANCELED: Final = 3
EXIT_TIMED_OUT: Final = 124
_CHECK_SERVICE: Final = "check that the service runs ('opstream up'), and that --url (OPSTREAM_URL) is right"
_ID_EXAMPLE: Final = "019abc12-3456-7890-abcd-ef0123456789"
RESPONSE_TIMEOUT: Final = 30.0
"""Seconds in which the service has to answer a command. While an operation is followed, it may be away for longer."""


@contextlib.contextmanager
def client_session(
    url: str, *, token: str | Callable[[], str] | None = None, operation_id: str = "", hint: str = ""
) -> Iterator[tuple[OperationsClient, OperationDisplay]]:
    """A client of the service and a display for stderr.

    Args:
        url: of the service.
        token: credentials for it, or what gets them; None for none.
        operation_id: which the user gave; named if there is no such operation.
        hint: what to tell the user after Ctrl-C.

    Raises:
        CommandError: the service refused, can't be reached, or the operation failed or was canceled.
        click.UsageError: the request can't be sent as it is.
        SystemExit: Ctrl-C was pressed.
    """
    from opstream.client import InvalidRequest, OperationCanceled, OperationsClient, OperationsError, RequestRefused

    display = make_operation_display(sys.stderr, time.monotonic, lambda: datetime.now(UTC))

    def show_retry(problem: str, delay: float) -> None:
        display.show_retry(_for_commands(problem), delay)

    try:
        with OperationsClient(url, on_retry=show_retry, token=token) as client:
            yield client, display
    except InvalidRequest as error:
        raise click.UsageError(str(error)) from error
    except OperationCanceled as error:
        raise CommandError(printable(str(error)), status=EXIT_CANCELED) from error
    except OperationsError as error:
        if operation_id and isinstance(error, RequestRefused) and error.code == ErrorCode.OPERATION_NOT_FOUND:
            raise CommandError(
                f"{hide_credentials(url)} has no operation with the id {operation_id!r}, or its retention is over: "
                f"an id looks like {_ID_EXAMPLE}, and 'opstream run' prints it in its first line"
            ) from error
        raise CommandError(printable(_for_commands(str(error)))) from error
    except KeyboardInterrupt:
        click.echo(f"interrupted{f'; {hint}' if hint else ''}", err=True)
        sys.exit(EXIT_INTERRUPTED)


@contextlib.contextmanager
def first_response(url: str, timeout: float | None = None, *, advice: str = "") -> Iterator[float]:
    """The seconds that the service has for its first response; a line on stderr says so when it takes long.

    Args:
        url: of the service.
        timeout: the user's, in seconds; None for none.
        advice: what to do without a response; the end of the error's text.

    Raises:
        CommandError: there was no response in time. The status is that of a timeout only if the user set that time.
    """
    from opstream.client import ServiceUnavailable

    is_users = timeout is not None and timeout <= RESPONSE_TIMEOUT
    seconds = timeout if timeout is not None and is_users else RESPONSE_TIMEOUT
    try:
        with wait_notice(f"a response of {hide_credentials(url)}", seconds):
            yield seconds
    except ServiceUnavailable as error:
        text = printable(_for_commands(f"{error.trouble}: {advice}" if advice else str(error)))
        if is_users:
            raise CommandError(f"the time of --timeout is up: {text}", status=EXIT_TIMED_OUT) from error
        raise CommandError(text) from error


@contextlib.contextmanager
def follow_session(operation_id: str, url: str) -> Iterator[None]:
    """While an operation is followed: a timeout or Ctrl-C ends the command, not the operation.

    Raises:
        CommandError: the time is up.
        SystemExit: Ctrl-C was pressed.
    """
    from opstream.client import WaitTimeout

    url_option = [] if url == DEFAULT_URL or "@" in url else ["--url", url]  # a password must not be printed
    follow = shlex.join(["opstream", "status", operation_id, "--wait", *url_option])
    cancel = shlex.join(["opstream", "cancel", operation_id, *url_option])
    hint = f"operation {operation_id} goes on: follow it with '{follow}', cancel it with '{cancel}'"
    try:
        yield
    except WaitTimeout as error:
        state = error.operation.status if error.operation else "not known"
        raise CommandError(f"the time is up, and the status is {state}; {hint}", status=EXIT_TIMED_OUT) from error
    except KeyboardInterrupt:
        click.echo(f"interrupted; {hint}", err=True)
        sys.exit(EXIT_INTERRUPTED)


def wait_for_end(
    client: OperationsClient, display: OperationDisplay, operation: Operation, url: str, timeout: float | None
) -> Operation:
    """Follow an operation on the display, and return its last state. The timeout is in seconds."""
    with follow_session(operation.id, url), display:
        display.show(operation.monitor)
        return client.wait(operation, timeout=timeout, on_change=lambda changed: display.show(changed.monitor))


def _for_commands(text: str) -> str:
    """A problem of the client with the words of commands: options rather than arguments."""
    from opstream.client.transport import CHECK_SERVICE

    return text.replace(CHECK_SERVICE, _CHECK_SERVICE)


def print_json(value: StatusMonitor | msgspec.Raw) -> None:
    """Print a document on stdout: indented on a terminal, otherwise as one line."""
    document = msgspec.json.encode(value)
    shown = msgspec.json.format(document, indent=2) if sys.stdout.isatty() else json_line(document)
    click.echo(shown_json(shown))


def json_line(document: bytes) -> bytes:
    """JSON as one line: the same bytes where they have no line break, so that their hash can be checked."""
    has_line_break = b"\n" in document or b"\r" in document
    return msgspec.json.format(document, indent=-1) if has_line_break else document
