"""A connection to the broker for as long as one command works, with the journal's errors as one line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from opstream.terminal.console import CommandError, printable
from opstream_journal import Connection, JournalError, NotProvisioned, connect

NO_JOURNAL: Final = "the broker has no journal: is it the right one? 'opstream provision' makes it"


@asynccontextmanager
async def broker_session(
    servers: Sequence[str], command: str, connect_timeout: float, *, advice: str = ""
) -> AsyncIterator[Connection]:
    """Connect to the broker, and close the connection at the end.

    Args:
        servers: URLs of the broker.
        command: name of the command, for the name of the connection.
        connect_timeout: seconds.
        advice: what to do about an outage while the command works; the end of the error's text.

    Raises:
        CommandError: the broker can't be reached, refuses, or is not provisioned, now or later in the session.
    """
    try:
        connection = await connect(servers, f"opstream-{command}", connect_timeout=connect_timeout)
        try:
            yield connection
        finally:
            await connection.close()
    except NotProvisioned as error:
        raise CommandError(printable(str(error))) from error
    except JournalError as error:
        raise CommandError(printable(f"{error}. {advice}" if advice else str(error))) from error
