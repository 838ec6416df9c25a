"""Fills a runner's queue: writes requests to the journal as the API does."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Final

import msgspec
import uuid_utils

from bench.harness import broker_state, http_client
from bench.harness.requests import make_request
from bench.throughput.load import BODY
from opstream_journal import NEW_OPERATION, Journal
from opstream_schemas.names import Kind
from opstream_schemas.operation.fold import first_event

KIND: Final = Kind("bench", "noop")

_BUDGET: Final = 30.0


class QueueFill(msgspec.Struct, frozen=True, kw_only=True):
    """The task."""

    nats_url: str
    operations: int
    in_flight: int


class QueueFillResult(msgspec.Struct, frozen=True):
    """The figures."""

    seconds: float


async def run(fill: QueueFill) -> QueueFillResult:
    """Run the task."""
    async with broker_state.connected(fill.nats_url) as connection:
        appender = Journal(connection, max_msg_size=-1, clock=time.monotonic)
        left = iter(range(fill.operations))
        began = time.perf_counter()

        async def work() -> None:
            for _ in left:
                await _append(appender)

        async with asyncio.TaskGroup() as workers:
            for _ in range(fill.in_flight):
                workers.create_task(work())
        return QueueFillResult(time.perf_counter() - began)


async def _append(appender: Journal) -> None:
    now = datetime.now(UTC)
    event = first_event(_new_id(), make_request(KIND, BODY, now), id=_new_id(), source="opstream/bench", time=now)
    await appender.append(KIND, event, NEW_OPERATION, budget=_BUDGET)


def _new_id() -> str:
    return str(uuid_utils.uuid7())


if __name__ == "__main__":
    http_client.run_task(run, QueueFill)
