"""`opstream fail`: ends an operation in the journal, on behalf of the operator."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec
import uuid_utils

from opstream.cli.options import client as client_options
from opstream.cli.options import common as common_options
from opstream.terminal.console import CommandError
from opstream_schemas.errors import FoldRefused, InvalidEvent, InvalidName, OperationFinished
from opstream_schemas.names import check_operation_id
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials

if TYPE_CHECKING:
    from opstream_journal.forced_end import OperatorFailure

SOURCE: Final = "opstream/operator"
"""`source` of the event."""
_TIMEOUT: Final = 10.0
"""Seconds for the end to be stored."""


class FailSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `opstream fail`."""

    operation_id: str
    reason: str
    is_forced: bool
    servers: tuple[str, ...]
    credentials: BrokerCredentials = NO_CREDENTIALS
    connect_timeout: float
    """Seconds."""


@click.command
@client_options.operation_argument
@client_options.force_option
@client_options.reason_option
@common_options.nats_option
@common_options.connect_timeout_option
def fail(**given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """End the operation ID: its status becomes Failed with the code FailedByOperator.

    For operators: it writes to the broker itself, so no service needs to run. A running attempt is told to stop (a
    plain handler in a thread has to check for it), and its outcome is refused. An operation whose events can't be
    understood (damaged, foreign, or of a newer version) needs --force: what can be read of it counts, the rest is
    skipped, and nothing is deleted. An operation that has ended stays as it is.

    \b
    Example:
      opstream fail 019abc12-3456-7890-abcd-ef0123456789 --reason 'its data is lost'
    """
    fail_operation(FailSettings(**given))


def fail_operation(settings: FailSettings) -> None:
    """End the operation, and print what was done.

    Raises:
        CommandError: the operation was not ended; the message says why.
        click.UsageError: the id is not valid.
    """
    operation_id = settings.operation_id
    try:
        check_operation_id(operation_id)
    except InvalidName as error:
        raise click.UsageError(str(error)) from error
    try:
        failure = asyncio.run(_fail(settings))
    except OperationFinished as finished:
        raise CommandError(f"{finished}, and an operation ends only once: nothing was recorded") from finished
    except (FoldRefused, InvalidEvent) as error:
        raise CommandError(
            f"operation {operation_id} can't be understood ({error}): --force ends it nevertheless"
        ) from error
    except InvalidName as error:
        raise CommandError(str(error)) from error
    if failure is None:
        raise CommandError(f"there is no operation {operation_id}, or its events have expired")
    _print_result(failure)


async def _fail(settings: FailSettings) -> OperatorFailure | None:
    from opstream.cli.broker_session import NO_JOURNAL, broker_session
    from opstream_journal import Journal, NotProvisioned
    from opstream_journal.command_handler import CommandHandler
    from opstream_journal.forced_end import fail_by_operator
    from opstream_journal.provisioning.provision import current_sizing

    async with broker_session(
        settings.servers, "fail", settings.connect_timeout, credentials=settings.credentials
    ) as connection:
        sizing = await current_sizing(connection)
        if sizing is None:
            raise NotProvisioned(NO_JOURNAL)
        journal = Journal(connection, max_msg_size=sizing.max_msg_size, clock=time.monotonic)
        await journal.start()
        handler = CommandHandler(
            journal=journal,
            source=SOURCE,
            now=lambda: datetime.now(UTC),
            monotonic=time.monotonic,
            new_id=lambda: str(uuid_utils.uuid7()),
        )
        return await fail_by_operator(
            handler,
            settings.operation_id,
            reason=settings.reason,
            is_forced=settings.is_forced,
            budget=_TIMEOUT,
        )


def _print_result(failure: OperatorFailure) -> None:
    found, event = failure.found, failure.event
    if found.operation is None:
        click.echo(f"{found.operation_id}: not even its request can be read, so it has no status; runners release it")
    else:
        was = found.operation.status
        click.echo(f"{found.operation_id}: {was} before, Failed now (position {event.position} of its events)")
    if found.problem is not None:
        unknown = found.operation.skipped if found.operation else 0
        skipped = f"{found.passed_over + unknown} of {found.message_count} messages were skipped"
        click.echo(f"{skipped}; the first problem: {found.problem}")
