"""Reads the work that waits on the broker: backlogs of consumers, timers, and locks with their owners."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from nats.js.api import ConsumerConfig

from opstream_journal import Connection, Journal
from opstream_journal.jetstream import rpc
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.operation.resource_lock import Claim
from opstream_schemas.webhook_delivery import OUTCOME_EVENTS, decode_delivery

from . import work_checks
from .work_checks import Backlog, FailingReceiver, Hold

_FIRED: Final = ("wake.", "due.")
_ALL: Final = ">"
_MAX_TIMERS: Final = 50
"""Scheduled messages that are looked at, the oldest ones."""
_MAX_LOCKS: Final = 500
_MAX_DELIVERIES: Final = 50
"""Deliveries that wait and are looked at, those that were scheduled first."""
_LATER: Final = subjects.webhook_later_subject("*", "*")
_LOOK_INTERVAL: Final = 0.5
"""Seconds between two looks at a consumer that seems to have no reader."""
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
        leader_age=_leader_age(info, now),
        idle=min((now - at for at in _active_at(info)), default=None),
        ack_wait=timedelta(microseconds=int(info["config"].get("ack_wait", 0)) // 1_000),
        most=max(0, int(info["config"].get("max_ack_pending", 0))),
        is_paused=bool(info.get("paused")),
        mark=(int(info["delivered"]["consumer_seq"]), int(info["ack_floor"]["consumer_seq"])),
    )


async def watch_backlogs(
    connection: Connection, consumers: Sequence[tuple[str, ConsumerConfig]], seconds: float
) -> list[Backlog]:
    """Return what each consumer has before it. One that seems to have no reader is looked at again for a while.

    A process that works asks for nothing between two batches, and one that has just started, or whose connection was
    lost, is about to ask.

    Args:
        connection: to the broker.
        consumers: each with its stream. One that is missing is left out.
        seconds: for which to look at those that are late; others are looked at for a fifth of that.

    Raises:
        JournalError: the broker did not answer, or refused.
    """
    found = {}
    for stream, config in consumers:
        backlog = await read_backlog(connection, stream, config)
        if backlog is not None:
            found[backlog.consumer] = backlog
    clock = asyncio.get_running_loop().time
    began = clock()
    while True:
        passed = clock() - began
        unread = [one for one in found.values() if not one.is_pulled and passed < _patience(one, seconds)]
        if not unread:
            return list(found.values())
        await connection.sleep(min(_LOOK_INTERVAL, seconds / 5))
        for stream, config in consumers:
            before = found.get(str(config.durable_name))
            if before not in unread:
                continue
            now = await read_backlog(connection, stream, config)
            if now is None or before is None:
                continue
            has_moved = now.mark != before.mark
            found[now.consumer] = msgspec.structs.replace(now, is_pulled=now.is_pulled or has_moved)


def _patience(backlog: Backlog, seconds: float) -> float:
    is_late = backlog.oldest is not None and backlog.oldest > work_checks.MAX_LAG
    return seconds if is_late else seconds / 5


def _leader_age(info: dict[str, Any], now: datetime) -> timedelta | None:
    since = (info.get("cluster") or {}).get("leader_since")
    return None if not since else now - datetime.fromisoformat(since)


def _active_at(info: dict[str, Any]) -> list[datetime]:
    times = [info[one].get("last_active") for one in ("delivered", "ack_floor")]
    return [datetime.fromisoformat(one) for one in times if one]


async def read_timers(connection: Connection) -> tuple[timedelta | None, timedelta | None]:
    """Return the age of the oldest fired timer that the journal has not copied, and how late the latest timer is.

    Neither is longer than TIMERS has had its leader.

    Raises:
        JournalError: the broker did not answer, or refused.
    """
    info = await admin.stream_info(connection, subjects.TIMERS_STREAM) or {}
    now = datetime.fromisoformat(info["ts"])
    led = _leader_age(info, now) or timedelta.max
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
    # A stream without a leader fires and copies nothing, which is over.
    uncopied = None if fired is None else min(now - _stored_at(fired), led)
    return uncopied, None if overdue is None else min(overdue, led)


async def read_failing(connection: Connection) -> list[FailingReceiver]:
    """Return the receivers of deliveries that wait for another attempt, by the oldest messages of the queue.

    Raises:
        JournalError: the broker did not answer, or refused.
    """
    info = await admin.stream_info(connection, subjects.WEBHOOKS_STREAM) or {}
    now = datetime.fromisoformat(info["ts"])
    begun: dict[str, list[datetime]] = {}
    sequence = 1
    for _ in range(_MAX_DELIVERIES):
        message = await rpc.get_next(connection, subjects.WEBHOOKS_STREAM, _LATER, sequence)
        if message is None:
            break
        sequence = message.seq + 1
        try:
            delivery = decode_delivery(message.data)
        except InvalidEvent:
            continue  # the service passes over it, too
        if delivery.attempt > 1:
            begun.setdefault(delivery.endpoint, []).append(delivery.begun)
    return [
        FailingReceiver(endpoint=endpoint, count=len(times), oldest=now - min(times))
        for endpoint, times in sorted(begun.items())
    ]


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
