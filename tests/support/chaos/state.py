"""What a broker holds once a chaos is over: the journal, the view, what is still armed, and what is still held.

    left = await gather_quiet(system.nats, within=60)
    assert left.open == []

Callers: `tests/chaos`, and `checks.py`, which judges it.
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
"""It is behind on purpose, so it says nothing about quiet."""
_PROJECTING: Final = (subjects.PROJECTOR_CONSUMER, subjects.PROJECTOR_DUE_CONSUMER)
_POLL: Final = 0.2


class FinalState(msgspec.Struct):
    """What is left."""

    evidence: Evidence
    operations: dict[str, Operation]
    """By id; those that can't be folded are missing, which `breaches` tells of."""
    timers: dict[str, str]
    """What is armed: operation ids by subject."""
    holds: dict[str, bytes]
    """Entries of the bucket `holds` by key."""

    @property
    def open(self) -> list[str]:
        """The ids of operations without an end."""
        return [one for one, history in self.evidence.histories().items() if not _is_ended(history[-1].subject)]


async def gather_quiet(url: str, *, within: float) -> FinalState:
    """Read everything once nothing is under way any more, or when `within` seconds are over.

    Quiet is: every operation has ended, all durables are idle, and nothing is armed for, held by or kept in a queue for
    an operation that has ended.
    """
    client = await nats.connect(url, connect_timeout=5)
    until = time.monotonic() + within
    try:
        while True:
            await _become_idle(client, max(1.0, until - time.monotonic()))
            left = await _gather(client)
            if time.monotonic() > until or not (left.open or stale_timers(left) or stale_holds(left)):
                return left
    finally:
        await client.close()


def stale_timers(left: FinalState) -> list[str]:
    """What is armed for operations that have ended."""
    is_open = set(left.open)
    return [subject for subject, operation_id in left.timers.items() if operation_id not in is_open]


def stale_holds(left: FinalState) -> list[tuple[str, str]]:
    """Keys of holders and of those who wait, each with its operation, that has ended."""
    named = {key: msgspec.json.decode(value, type=_Named).operation_id for key, value in left.holds.items()}
    is_open = set(left.open)
    return [(key, one) for key, one in named.items() if one and one not in is_open]


class _Named(msgspec.Struct, rename="camel"):
    """What any entry of the bucket says of an operation; a rate's says nothing."""

    operation_id: str = ""


async def _become_idle(client: Client, within: float) -> None:
    """Wait until every durable but the trailing one has delivered all, and got an ack for all.

    What a killed projector held comes again after 30 s. For this wait the broker is told to be less patient; it is set
    back then, since a projector that starts would take the difference for drift.
    """
    jetstream = client.jetstream()
    kept = [(await jetstream.consumer_info(subjects.OPERATIONS_STREAM, one)).config for one in _PROJECTING]
    for config in kept:
        await jetstream.add_consumer(subjects.OPERATIONS_STREAM, config.evolve(ack_wait=1.0))

    async def is_idle() -> bool:
        consumers = await jetstream.consumers_info(subjects.OPERATIONS_STREAM)
        ignored = {_TRAILING, subjects.WEBHOOKS_CONSUMER}
        durable = [one for one in consumers if one.config.durable_name and one.name not in ignored]
        return not any(one.num_pending or one.num_ack_pending for one in durable)

    try:
        await eventually(is_idle, within=within, poll=_POLL)
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
    """What the keys of a bucket hold; the marker of a removed one is empty."""
    prefix = subjects.bucket_subject(bucket, "")
    entries = await _read(client, subjects.bucket_stream(bucket))
    return {one.subject.removeprefix(prefix): one.payload for one in entries if one.payload}


def _is_ended(subject: str) -> bool:
    return subjects.parse_event_subject(subject).event in TERMINAL_EVENTS
