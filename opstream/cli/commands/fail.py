"""`opstream fail`: ends an operation in the journal, in the operator's name."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any, Final

import click
import msgspec
import uuid_utils

from opstream.cli.options import client as options
from opstream.cli.options import common as service_options
from opstream.terminal.console import CommandError
from opstream_journal import Journal, JournalError, NotProvisioned, connect
from opstream_journal.command_handler import CommandHandler
from opstream_journal.forced_end import ForcedFailure, force_fail
from opstream_journal.provisioning.provision import current_sizing
from opstream_schemas.errors import FoldRefused, InvalidEvent, InvalidName, OperationFinished
from opstream_schemas.names import check_operation_id

SOURCE: Final = "opstream/operator"
"""Of the event."""
_TIMEOUT: Final = 10.0


class FailSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`opstream fail`."""

    operation_id: str
    reason: str
    is_forced: bool
    servers: tuple[str, ...]
    connect_timeout: float
    """Seconds."""


@click.command(short_help="End an operation as failed.")
@options.operation_argument
@options.force_option
@options.reason_option
@service_options.nats_option
@service_options.connect_timeout_option
def fail(**given: Any) -> None:  # noqa: ANN401
    """End the operation ID: its status becomes Failed with the code FailedByOperator.

    For operators, on the broker itself, so also with no service running. Whatever still runs for it is told to stop (a
    plain handler in a thread has to look), and its outcome is refused. An operation whose events can't be understood
    (damaged, foreign, or of a newer version) needs --force: it keeps what can be read of it, the rest is passed over,
    and nothing is deleted. What has ended stays as it is.

    \b
    Example:
      opstream fail 019abc12-3456-7890-abcd-ef0123456789 --reason 'its data is lost'
    """
    fail_operation(FailSettings(**given))


def fail_operation(settings: FailSettings) -> None:
    """End the operation, and say what was done.

    Raises:
        Failure: it was not ended; the message says why.
    """
    operation_id = settings.operation_id
    try:
        check_operation_id(operation_id)
    except InvalidName as error:
        raise click.UsageError(str(error)) from error
    try:
        ended = asyncio.run(_fail(settings))
    except OperationFinished as finished:
        raise CommandError(f"{finished}, which is never left: nothing was recorded") from finished
    except (FoldRefused, InvalidEvent) as error:
        raise CommandError(
            f"operation {operation_id} can't be understood ({error}): --force ends it all the same"
        ) from error
    except (JournalError, InvalidName) as error:
        raise CommandError(str(error)) from error
    if ended is None:
        raise CommandError(f"there is no operation {operation_id}, or its events have expired")
    _print_result(ended)


async def _fail(settings: FailSettings) -> ForcedFailure | None:
    link = await connect(settings.servers, "opstream-fail", connect_timeout=settings.connect_timeout)
    try:
        sizing = await current_sizing(link)
        if sizing is None:
            raise NotProvisioned("the broker has no journal: is it the right one? 'opstream provision' makes it")
        journal = Journal(link, max_msg_size=sizing.max_msg_size, clock=time.monotonic)
        await journal.start()
        carrier = CommandHandler(
            journal=journal,
            source=SOURCE,
            now=lambda: datetime.now(UTC),
            monotonic=time.monotonic,
            new_id=lambda: str(uuid_utils.uuid7()),
        )
        return await force_fail(
            carrier,
            settings.operation_id,
            reason=settings.reason,
            is_forced=settings.is_forced,
            budget=_TIMEOUT,
        )
    finally:
        await link.close()


def _print_result(ended: ForcedFailure) -> None:
    found, event = ended.found, ended.event
    if found.operation is None:
        click.echo(f"{found.operation_id}: not even its request can be read, so it has no status; runners let go of it")
    else:
        was = found.operation.status
        click.echo(f"{found.operation_id}: {was} before, Failed now (position {event.position} of its events)")
    if found.problem is not None:
        unknown = found.operation.skipped if found.operation else 0
        passed_over = f"{found.passed_over + unknown} of {found.message_count} messages were passed over"
        click.echo(f"{passed_over}; the first trouble: {found.problem}")
