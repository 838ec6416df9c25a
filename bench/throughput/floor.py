"""The floor: the least that any design with the same durability must do, as nats-py does it.

For each operation three publishes, each with its message id and both expected-sequence headers, and one put of the
snapshot at its expected revision; one after the other within an operation, many operations at once. The streams are
opstream's own, the bytes are as many as opstream's; nothing is encoded, decoded, decided or delivered.
"""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime
from typing import Final

import msgspec
import nats
import uuid_utils
import uvloop
from nats.js import JetStreamContext
from nats.js.kv import KeyValue

from bench.harness.requests import make_request
from bench.throughput.load import BODY
from opstream_journal.provisioning.topology import Sizing, streams
from opstream_schemas import subjects
from opstream_schemas.events import (
    CONTENT_TYPE,
    Event,
    EventData,
    Requested,
    Started,
    Succeeded,
    encode_event,
    recorded_event,
)
from opstream_schemas.names import Kind
from opstream_schemas.operation.fold import first_event, fold_for_reader, next_event

KIND: Final = Kind("bench", "noop")

_TIMEOUT: Final = 30.0


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """The task."""

    url: str
    operations: int
    in_flight: int
    samples: int
    """Operations that are timed alone, before the others."""


class FloorResult(msgspec.Struct, frozen=True, kw_only=True):
    """The figures. Times in seconds."""

    operations: int
    seconds: float
    cpu: float
    """Of the client."""
    alone: list[float]
    """The three publishes of one operation while nothing else runs."""


class OperationBytes(msgspec.Struct, frozen=True):
    """What is stored for one operation."""

    events: tuple[tuple[str, bytes], ...]
    """Type and body of each."""
    snapshot: bytes


def sample_operation() -> OperationBytes:
    """An operation of opstream's, from its own encoders."""
    now = datetime.now(UTC)
    requested = make_request(KIND, BODY, now)
    runner = "a-host-12345-abcdef"
    started = Started(attempt=1, runner=runner, token=_new_id(), ticket=1_234_567, lease=30.0)
    succeeded = Succeeded(result=msgspec.Raw(BODY))
    first = first_event(_new_id(), requested, id=_new_id(), source="opstream/api", time=now)
    bodies = [encode_event(first)]
    operation = fold_for_reader(None, [recorded_event(first, bodies[0], 1_234_567)])
    for number, data in enumerate((started, succeeded), start=1):
        assert operation is not None
        event: Event = next_event(operation, data, id=_new_id(), source=f"opstream/runner/{runner}", time=now)
        bodies.append(encode_event(event))
        operation = fold_for_reader(operation, [recorded_event(event, bodies[-1], 1_234_567 + number)])
    kinds: tuple[type[EventData], ...] = (Requested, Started, Succeeded)
    names = [kind.name for kind in kinds]
    return OperationBytes(tuple(zip(names, bodies, strict=True)), msgspec.json.encode(operation))


async def run(floor: Floor) -> FloorResult:
    """Create missing streams, and run the pipeline."""
    connection = await nats.connect(floor.url)
    try:
        js = connection.jetstream(timeout=_TIMEOUT)
        for config in streams(Sizing()):
            await js.add_stream(config)
        view = await js.key_value(subjects.VIEW_BUCKET)
        data = sample_operation()
        alone = []
        for _ in range(floor.samples):
            began = time.perf_counter()
            operation_id = await _publish(js, data)
            alone.append(time.perf_counter() - began)
            await view.update(operation_id, data.snapshot, last=0)
        cpu, began = time.process_time(), time.perf_counter()
        await _together(js, view, data, floor)
        return FloorResult(
            operations=floor.operations,
            seconds=time.perf_counter() - began,
            cpu=time.process_time() - cpu,
            alone=alone,
        )
    finally:
        await connection.close()


async def _together(js: JetStreamContext, view: KeyValue, data: OperationBytes, floor: Floor) -> None:
    left = iter(range(floor.operations))

    async def work() -> None:
        for _ in left:
            await view.update(await _publish(js, data), data.snapshot, last=0)

    async with asyncio.TaskGroup() as workers:
        for _ in range(floor.in_flight):
            workers.create_task(work())


async def _publish(js: JetStreamContext, data: OperationBytes) -> str:
    operation_id = _new_id()
    everything = subjects.operation_filter(operation_id)
    sequence = 0
    for name, body in data.events:
        headers = {
            "Nats-Msg-Id": _new_id(),
            "Nats-Expected-Last-Subject-Sequence": str(sequence),
            "Nats-Expected-Last-Subject-Sequence-Subject": everything,
            "Content-Type": CONTENT_TYPE,
        }
        stored = await js.publish(subjects.event_subject(operation_id, KIND, name), body, headers=headers)
        sequence = stored.seq
    return operation_id


def _new_id() -> str:
    return str(uuid_utils.uuid7())


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(run(msgspec.json.decode(sys.argv[1], type=Floor)))))
