"""Acts of administrators at the command line, for the access log (docs/adr/0053)."""

from __future__ import annotations

import getpass
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from opstream.terminal.console import printable
from opstream_schemas.logs.access_log import DETAIL_LIMIT, ActRecord, AdminAct
from opstream_schemas.text import truncate_text

if TYPE_CHECKING:
    from opstream_journal import Connection

_NAME_LIMIT: Final = 200
"""Bytes of the user and host."""


async def record_act(connection: Connection, act: AdminAct, *, target: str = "", detail: str = "") -> None:
    """Record an act that is done. If that fails, the command has worked nevertheless, and says so on standard error."""
    from opstream_journal import JournalError
    from opstream_journal.access_log import AccessLog

    record = ActRecord(
        act=act,
        at=datetime.now(UTC),
        by=who_acts(),
        target=target,
        detail=truncate_text(detail, DETAIL_LIMIT),
    )
    try:
        await AccessLog(connection).write(record)
    except JournalError as error:
        click.echo(printable(f"opstream: done, but not in the access log: {error}"), err=True)


def who_acts() -> str:
    """Return the user and host as the operating system names them, which prove nothing."""
    return truncate_text(f"{_user()}@{socket.gethostname()}", _NAME_LIMIT)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user id without a name, as in a container
        return "unknown"
