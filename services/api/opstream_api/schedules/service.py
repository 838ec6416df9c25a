"""Starts what schedules need in one process, on a connection that is up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime
from typing import NamedTuple

from opstream_api.access.access_control import AccessControl
from opstream_api.access.denials.access_recorder import AccessRecorder
from opstream_api.operations.status import StatusReader
from opstream_api.operations.submit import Submitter
from opstream_journal import Connection
from opstream_journal.jetstream.connection import end_task
from opstream_journal.schedules.schedule_stream import ScheduleStream
from opstream_schemas.logs.access_log import AdminAct

from .desk import ScheduleDesk
from .schedule_book import ScheduleBook
from .submits import ScheduleSubmits
from .ticker import ScheduleTicker


class Schedules(NamedTuple):
    """What one process has for schedules."""

    desk: ScheduleDesk
    ticker: ScheduleTicker
    book: ScheduleBook
    submits: ScheduleSubmits


async def open_schedules(
    stack: AsyncExitStack,
    connection: Connection,
    submitter: Submitter,
    status: StatusReader,
    access: AccessControl | None,
    recorder: AccessRecorder,
    *,
    now: Callable[[], datetime],
) -> Schedules:
    """Return what a process has for schedules; its ticker runs until the stack is closed.

    Args:
        stack: ends what was started.
        connection: the connection.
        submitter: submits operations.
        status: reads operations.
        access: who may do what; None without authentication.
        recorder: gets what administrators do to schedules of others.
        now: returns the time with a time zone.
    """
    submits = ScheduleSubmits(
        submitter,
        None if access is None else access.operations.ids,
        _no_principal if access is None else access.key_principal,
    )
    stream = ScheduleStream(connection, submits.stored_key)
    await stream.start()
    stack.push_async_callback(stream.stop)
    book = ScheduleBook(stream)
    ticker = ScheduleTicker(connection, stream, book, submits, read=status.read, now=now)
    stack.push_async_callback(end_task, asyncio.create_task(ticker.run(), name="schedules"))
    desk = ScheduleDesk(
        stream,
        book,
        submits,
        check_input=submitter.check_input,
        on_foreign=lambda admin, name, what: recorder.note_act(AdminAct.SCHEDULE_CHANGED, admin, name, detail=what),
        now=now,
    )
    return Schedules(desk, ticker, book, submits)


def _no_principal(_key_id: str) -> None:
    """No key is in use without authentication."""
