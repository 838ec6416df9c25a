"""`opstream erase`: destroys the key of a confidential operation, on behalf of the operator."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

from opstream.cli.options import client as client_options
from opstream.cli.options import common as common_options
from opstream.terminal.console import CommandError, printable
from opstream_schemas.errors import FoldRefused, InvalidEvent, InvalidName
from opstream_schemas.logs.access_log import AdminAct
from opstream_schemas.names import check_operation_id
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials

if TYPE_CHECKING:
    from opstream_journal import Connection
    from opstream_schemas.event_types.erasure import Erasure


class EraseSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `opstream erase`."""

    operation_id: str
    reason: str
    servers: tuple[str, ...]
    credentials: BrokerCredentials = NO_CREDENTIALS
    connect_timeout: float
    """Seconds."""


@click.command
@client_options.operation_argument
@client_options.reason_option
@common_options.nats_option
@common_options.connect_timeout_option
def erase(**given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Erase the confidential operation ID: its key is destroyed, and nobody can read what it is about any more.

    For operators: it writes to the broker itself, and also erases what is left of an operation whose retention is over
    (in the archive, in exports, in backups). Callers erase their own by DELETE /status/ID. The operation has to have
    ended. With authentication ID is the stored id, as 'opstream audit' shows it. It can't be undone.

    \b
    Example:
      opstream erase 019abc12-3456-7890-abcd-ef0123456789 --reason 'ticket 4711'
    """
    erase_operation(EraseSettings(**given))


def erase_operation(settings: EraseSettings) -> None:
    """Erase an operation, and print what is known of it.

    Raises:
        CommandError: it was not erased; the message says why.
        click.UsageError: the id is not valid.
    """
    try:
        check_operation_id(settings.operation_id)
    except InvalidName as error:
        raise click.UsageError(str(error)) from error
    erasure = asyncio.run(_erase(settings))
    by = f" by {printable(erasure.by)}" if erasure.by else ""
    why = f": {printable(erasure.reason)}" if erasure.reason else ""
    click.echo(f"{settings.operation_id} was erased at {erasure.at:%Y-%m-%d %H:%M:%SZ}{by}{why}")


async def _erase(settings: EraseSettings) -> Erasure:
    from opstream.cli.admin_acts import record_act, who_acts
    from opstream.cli.broker_session import broker_session
    from opstream_journal.keys.operation_keys import OperationKeys
    from opstream_schemas.event_types.erasure import REASON_LIMIT, Erasure
    from opstream_schemas.text import truncate_text

    operation_id = settings.operation_id
    async with broker_session(
        settings.servers, "erase", settings.connect_timeout, credentials=settings.credentials
    ) as connection:
        keys = OperationKeys(connection, None)
        name = await keys.name_of(operation_id)
        if name is None:
            raise CommandError(
                f"there is no key of an operation {operation_id} on this broker: it is not confidential, so it can't "
                "be erased, or there is no such operation"
            )
        await _check_ended(connection, operation_id)
        reason = truncate_text(settings.reason, REASON_LIMIT)
        erasure = await keys.put_erased(name, Erasure(at=datetime.now(UTC), by=who_acts(), reason=reason))
        await record_act(connection, AdminAct.ERASED, target=operation_id, detail=settings.reason)
    return erasure


async def _check_ended(connection: Connection, operation_id: str) -> None:
    """Check that the operation has ended, as far as the journal still has it.

    Raises:
        CommandError: it is open.
    """
    from opstream_journal import Journal
    from opstream_schemas.operation.fold import fold_for_reader

    journal = Journal(connection, max_msg_size=-1, clock=time.monotonic)
    await journal.start()
    try:
        operation = fold_for_reader(None, await journal.events(operation_id))
    except (FoldRefused, InvalidEvent) as error:
        raise CommandError(
            f"operation {operation_id} can't be understood ({error}): end it first, by 'opstream fail --force'"
        ) from error
    if operation is not None and not operation.is_terminal:
        raise CommandError(f"operation {operation_id} is {operation.status}: cancel it, and erase it once it has ended")
