"""A connection to the broker for as long as one command works, with the journal's errors as one line.

It also says which ids of operations are unknown.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from opstream.terminal.console import CommandError, printable
from opstream.terminal.wait_notice import wait_notice
from opstream_journal import Connection, Journal, JournalError, JournalUnavailable, NotProvisioned, connect
from opstream_journal.missing_leader import explain_unavailable
from opstream_journal.provisioning.provision import check_journal_is_ours
from opstream_schemas.broker_access.logins import LoginNeed
from opstream_schemas.broker_access.permissions import Role
from opstream_schemas.urls import BrokerCredentials, hide_credentials

NO_JOURNAL: Final = (
    "the broker has no journal: is it the right one? If it had a journal, stop the services and restore it from a "
    "backup first (docs/running.md, When the journal was deleted); otherwise 'opstream provision' makes an empty one"
)

_READING: Final = frozenset({"audit", "deliveries", "export", "parked", "replay", "verify"})
"""Commands that an auditor may run."""
_LOOK_THEMSELVES: Final = frozenset({"provision", "restore"})
"""Commands that look at all streams before they touch one."""


@asynccontextmanager
async def broker_session(
    servers: Sequence[str],
    command: str,
    connect_timeout: float,
    *,
    credentials: BrokerCredentials,
    advice: str = "",
    role: Role | None = None,
) -> AsyncIterator[Connection]:
    """Connect to the broker, and close the connection at the end.

    Args:
        servers: URLs of the broker.
        command: name of the command, for the name of the connection.
        connect_timeout: seconds.
        credentials: of the login at the broker.
        advice: what to do about an outage while the command works; the end of the error's text.
        role: whose login at the broker the command needs, besides the operator's; None for what its name says.

    Raises:
        CommandError: the broker can't be reached, refuses, is not provisioned, or has another application's journal,
            now or later in the session; or the login is that of another role.
    """
    role = role or (Role.AUDITOR if command in _READING else Role.ADMIN)
    need = LoginNeed(process=f"opstream {command}", roles=(role,))
    try:
        shown = ", ".join(map(hide_credentials, servers))
        with wait_notice(f"the broker at {shown}", connect_timeout):
            connection = await connect(
                servers, f"opstream-{command}", connect_timeout=connect_timeout, credentials=credentials, need=need
            )
        try:
            if command not in _LOOK_THEMSELVES:
                with suppress(JournalUnavailable):  # which the command finds itself, and some wait for
                    await check_journal_is_ours(connection)
            yield connection
        except JournalUnavailable as error:
            if not connection.is_connected:
                raise
            why = await explain_unavailable(connection.nc, error)
            raise CommandError(printable(f"{why}. {advice}" if advice else why)) from error
        finally:
            await connection.close()
    except NotProvisioned as error:
        raise CommandError(printable(str(error))) from error
    except JournalError as error:
        raise CommandError(printable(f"{error}. {advice}" if advice else str(error))) from error


async def unknown_operations(connection: Connection, operation_ids: Iterable[str]) -> list[str]:
    """Return those ids, sorted, of which the journal has no message: of no operation, or its events have expired.

    Raises:
        JournalError: the broker did not answer.
    """
    journal = Journal(connection, max_msg_size=-1, clock=time.monotonic)
    await journal.start()
    return [one for one in sorted(operation_ids) if not await journal.messages(one)]
