"""What the broker holds after a chaos run: the journal, the snapshots, the timers and the locks.

left = await gather_quiet(system.nats, within=60)
assert left.open == []
"""

from __future__ import annotations

import time
from typing import Final

import msgspec
import nats
from nats.aio.client import Client

from opstream_schemas import subjects
from opstream_schemas.errors import FoldRefused, InvalidEvent
from opstream_schemas.operation.fold import fold_for_reader
from opstream_schemas.operation.state import Operation
from tests.support.system.invariants import TERMINAL_EVENTS, Evidence, _read, decoded
from tests.support.system.wait import eventually

_TRAILING: Final = subjects.PROJECTOR_DEADLINES_CONSUMER
"""It is behind on purpose, so it is ignored."""
_PROJECTING: Final = (subjects.PROJECTOR_CONSUMER, subjects.PROJECTOR_DUE_CONSUMER)
_POLL: Final = 0.2
_REDELIVERED: Final = 45.0
"""Seconds after which a subscriber that was killed has got its events again: their `ack_wait` is 30 s."""


class FinalState(msgspec.Struct):
    """The broker's contents."""

    evidence: Evidence
    operations: dict[str, Operation]
    """By id, without those that can't be folded; `breaches` reports these."""
    timers: dict[str, str]
    """Set timers: operation ids by subject."""
    holds: dict[str, bytes]
    """Entries of the bucket `holds` by key."""

    @property
    def open(self) -> list[str]:
        """The ids of operations without an end."""
        return [one for one, history in self.evidence.histories().items() if not _is_ended(history[-1].subject)]


async def gather_quiet(url: str, *, within: float) -> FinalState:
    """Wait until the system is quiet, or for `within` seconds, and read everything.

    Quiet means: all operations have ended, all durables are idle, and an ended operation has no timer, no lock and no
    place in a queue.
    """
    client = await nats.connect(url, connect_timeout=5)
    until = time.monotonic() + within
    try:
        while True:
            await _become_idle(client, max(_REDELIVERED, until - time.monotonic()))
            left = await _gather(client)
            if time.monotonic() > until or not (left.open or stale_timers(left) or stale_holds(left)):
                return left
    finally:
        await client.close()


def stale_timers(left: FinalState) -> list[str]:
    """Timers of operations that have ended."""
    is_open = set(left.open)
    return [subject for subject, operation_id in left.timers.items() if operation_id not in is_open]


def stale_holds(left: FinalState) -> list[tuple[str, str]]:
    """Keys of locks and queue places of ended operations, each with its operation."""
    named = {key: msgspec.json.decode(value, type=_Named).operation_id for key, value in left.holds.items()}
    is_open = set(left.open)
    return [(key, one) for key, one in named.items() if one and one not in is_open]


class _Named(msgspec.Struct, rename="camel"):
    """The operation of an entry; a rate limiter's entry has none."""

    operation_id: str = ""


async def _become_idle(client: Client, within: float) -> None:
    """Wait until all durables except the one of deadlines have delivered all messages and got an ack for each.

    The broker redelivers what a killed projector held after 30 s. During this wait its `ack_wait` is shorter; it is
    restored at the end, since a projector that starts would report the difference as drift.
    """
    jetstream = client.jetstream()
    kept = [(await jetstream.consumer_info(subjects.OPERATIONS_STREAM, one)).config for one in _PROJECTING]
    for config in kept:
        await jetstream.add_consumer(subjects.OPERATIONS_STREAM, config.evolve(ack_wait=1.0))

    busy: list[str] = []

    async def is_idle() -> bool:
        consumers = await jetstream.consumers_info(subjects.OPERATIONS_STREAM)
        ignored = {_TRAILING, subjects.WEBHOOKS_CONSUMER}
        durable = [one for one in consumers if one.config.durable_name and one.name not in ignored]
        busy[:] = [
            f"{one.name}: {one.num_pending} to deliver, {one.num_ack_pending} not acknowledged"
            for one in durable
            if one.num_pending or one.num_ack_pending
        ]
        return not busy

    try:
        await eventually(is_idle, within=within, poll=_POLL)
    except AssertionError as error:
        raise AssertionError(f"{error}: {'; '.join(busy)}") from error
    finally:
        for config in kept:
            await jetstream.add_consumer(subjects.OPERATIONS_STREAM, config)


async def _gather(client: Client) -> FinalState:
    messages = await _read(client, subjects.OPERATIONS_STREAM)
    view = await _bucket(client, subjects.VIEW_BUCKET)
    evidence = Evidence(messages, view)
    operations = {}
    for operation_id, history in evidence.histories().items():
        try:
            operation = fold_for_reader(None, decoded(history))
        except (InvalidEvent, FoldRefused):
            continue
        if operation is not None:
            operations[operation_id] = operation
    armed = await client.jetstream().stream_info(subjects.TIMERS_STREAM, subjects_filter="timers.>")
    timers = {subject: subject.split(".")[3] for subject in armed.state.subjects or {}}
    return FinalState(evidence, operations, timers, await _bucket(client, subjects.HOLDS_BUCKET))


async def _bucket(client: Client, bucket: str) -> dict[str, bytes]:
    """The values of a bucket by key; removed keys are left out."""
    prefix = subjects.bucket_subject(bucket, "")
    entries = await _read(client, subjects.bucket_stream(bucket))
    return {one.subject.removeprefix(prefix): one.payload for one in entries if one.payload}


def _is_ended(subject: str) -> bool:
    return subjects.parse_event_subject(subject).event in TERMINAL_EVENTS
