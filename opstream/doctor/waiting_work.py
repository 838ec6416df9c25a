"""Reads the work that waits on the broker: backlogs of consumers, timers, and locks with their owners."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from nats.js.api import ConsumerConfig

from opstream_journal import Connection, Journal
from opstream_journal.jetstream import rpc
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_schemas import subjects
from opstream_schemas.operation.resource_lock import Claim
from opstream_schemas.webhook_delivery import OUTCOME_EVENTS

from .work_checks import Backlog, Hold

_FIRED: Final = ("wake.", "due.")
_ALL: Final = ">"
_MAX_TIMERS: Final = 50
"""Scheduled messages that are looked at, the oldest ones."""
_MAX_LOCKS: Final = 500
_SCHEDULE_HEADER: Final = "nats-schedule:"
_SCHEDULE: Final = "@at "
_owner: Final = msgspec.json.Decoder(Claim).decode
_HOLDS_STREAM: Final = subjects.bucket_stream(subjects.HOLDS_BUCKET)
_OWNERS: Final = subjects.bucket_subject(subjects.HOLDS_BUCKET, "h.>")


async def read_backlog(connection: Connection, stream: str, config: ConsumerConfig) -> Backlog | None:
    """Return what a consumer has before it; None if there is no such consumer.

    Raises:
        JournalError: the broker did not answer, or refused.
    """
    info = await admin.consumer_info(connection, stream, str(config.durable_name))
    if info is None:
        return None
    now = datetime.fromisoformat(info["ts"])
    filters = config.filter_subjects or ([config.filter_subject] if config.filter_subject else [_ALL])
    pending, unacknowledged = int(info.get("num_pending", 0)), int(info.get("num_ack_pending", 0))
    oldest = timer = None
    if pending or unacknowledged:
        oldest = await _first(connection, stream, filters, int(info["ack_floor"]["stream_seq"]) + 1)
    if pending:
        fired = [one for one in filters if one.startswith(_FIRED)]
        timer = await _first(connection, stream, fired, int(info["delivered"]["stream_seq"]) + 1)
    return Backlog(
        consumer=str(config.durable_name),
        pending=pending,
        unacknowledged=unacknowledged,
        is_pulled=bool(info.get("num_waiting", 0)),
        oldest=None if oldest is None else now - _stored_at(oldest),
        timer="" if timer is None else timer.subject,
        timer_age=timedelta(0) if timer is None else now - _stored_at(timer),
    )


async def read_timers(connection: Connection) -> tuple[timedelta | None, timedelta | None]:
    """Return the age of the oldest fired timer that the journal has not copied, and how late the latest timer is.

    Raises:
        JournalError: the broker did not answer, or refused.
    """
    info = await admin.stream_info(connection, subjects.TIMERS_STREAM) or {}
    now = datetime.fromisoformat(info["ts"])
    fired = await _first(connection, subjects.TIMERS_STREAM, [subjects.WAKE_SOURCE, subjects.DUE_SOURCE], 1)
    overdue: timedelta | None = None
    sequence = 1
    for _ in range(_MAX_TIMERS):
        message = await rpc.get_next(connection, subjects.TIMERS_STREAM, "timers.>", sequence)
        if message is None:
            break
        sequence = message.seq + 1
        at = _scheduled_at(message)
        if at is not None and at < now:
            overdue = max(overdue or timedelta(0), now - at)
    return (None if fired is None else now - _stored_at(fired)), overdue


async def read_holds(connection: Connection) -> tuple[list[Hold], int]:
    """Return the locks whose owners are no open operations of the journal, and how many locks were looked at.

    Raises:
        JournalError: the broker did not answer, or refused.
    """
    journal = Journal(connection, max_msg_size=-1, clock=time.monotonic)
    await journal.start()
    info = await admin.stream_info(connection, _HOLDS_STREAM) or {}
    now = datetime.fromisoformat(info["ts"])
    keys = (await admin.stream_subjects(connection, _HOLDS_STREAM, _OWNERS))[:_MAX_LOCKS]
    stale, count = [], 0
    for key in keys:
        stored = await rpc.get_last(connection, _HOLDS_STREAM, key)
        if stored is None or not stored.data:
            continue
        try:
            claim = _owner(stored.data)
            last = await journal.last_message(claim.operation_id)
        except (msgspec.MsgspecError, ValueError):
            continue  # services pass over it, too
        count += 1
        if last is None or last.subject.rpartition(".")[2] in OUTCOME_EVENTS:
            since = _stored_at(stored) if last is None else max(_stored_at(stored), _stored_at(last))
            lock = key.partition(".h.")[2]
            stale.append(Hold(lock=lock, operation_id=claim.operation_id, age=now - since))
    return stale, count


async def _first(connection: Connection, stream: str, filters: list[Any], sequence: int) -> rpc.StoredMessage | None:
    """Return the first message of any of these filters from a sequence on."""
    found = [await rpc.get_next(connection, stream, one, sequence) for one in filters]
    return min((one for one in found if one is not None), key=lambda one: one.seq, default=None)


def _stored_at(message: rpc.StoredMessage) -> datetime:
    return datetime.fromisoformat(message.time)


def _scheduled_at(message: rpc.StoredMessage) -> datetime | None:
    for line in message.hdrs.decode("utf-8", "replace").split("\r\n"):
        if line.lower().startswith(_SCHEDULE_HEADER):
            text = line[len(_SCHEDULE_HEADER) :].strip()
            try:
                return datetime.fromisoformat(text.removeprefix(_SCHEDULE)) if text.startswith(_SCHEDULE) else None
            except ValueError:
                return None
    return None
