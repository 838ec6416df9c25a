"""Starts what bulk operations need in one process, on a connection that is up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Final

from opstream_api.access.access_control import AccessControl
from opstream_api.access.denials.access_recorder import AccessRecorder
from opstream_api.lists.operation_list import OperationList
from opstream_api.operations.cancel import Canceler
from opstream_api.operations.retry import Retrier
from opstream_api.operations.submit import EVENT_SOURCE, Submitter
from opstream_journal import Connection, Journal
from opstream_journal.command_handler import CommandHandler
from opstream_journal.jetstream.connection import end_task
from opstream_schemas.bulk.kinds import BulkAct

from .attempt import BulkTools
from .bulk_caller import BulkCallers
from .bulk_items import BulkItems
from .desk import BulkDesk
from .executor import BulkExecutor

TURNS: Final = 4
"""Things that the bulk operations of a process do at a moment: an item, a page of the index, a count."""


def open_bulk(
    stack: AsyncExitStack,
    connection: Connection,
    journal: Journal,
    lists: OperationList | None,
    access: AccessControl | None,
    recorder: AccessRecorder,
    *,
    submitter: Submitter,
    retrier: Retrier,
    canceler: Canceler,
    now: Callable[[], datetime],
    clock: Callable[[], float],
    new_id: Callable[[], str],
) -> BulkDesk | None:
    """Return what takes bulk requests; None without an index. Bulk operations are run until the stack is closed.

    Args:
        stack: ends what was started.
        connection: the connection.
        journal: the journal.
        lists: reads the index; None for a service without one.
        access: who may do what; None without authentication.
        recorder: records which items were denied.
        submitter: submits bulk operations.
        retrier: makes follow-ups.
        canceler: cancels.
        now: returns the time with a time zone.
        clock: returns monotonic seconds.
        new_id: makes ids of events, and tokens of attempts.
    """
    if lists is None:
        return None
    tools = BulkTools(
        journal=journal,
        commands=CommandHandler(journal=journal, source=EVENT_SOURCE, now=now, monotonic=clock, new_id=new_id),
        lists=lists,
        items=BulkItems(retrier=retrier, canceler=canceler, access=access, on_forbidden=recorder.note_forbidden_item),
        callers=BulkCallers(access, now),
        turns=asyncio.Semaphore(TURNS),
        clock=clock,
    )
    executors = {act: BulkExecutor(connection, act, tools, new_id) for act in BulkAct}
    for act, executor in executors.items():
        stack.push_async_callback(end_task, asyncio.create_task(executor.run(), name=f"bulk {act}"))
    return BulkDesk(
        lists=lists,
        submitter=submitter,
        ids=None if access is None else access.operations.ids,
        why_off=lambda act: executors[act].why_off,
        clock=clock,
    )
