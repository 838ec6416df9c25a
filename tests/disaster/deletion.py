"""Disasters by hand: a stream, a bucket or a consumer is deleted, while everything runs.

Only the journal (`OPERATIONS`) can't be made again. An operator runs `opstream provision` for the rest.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import ClassVar

import nats
from nats.js import JetStreamContext

from opstream_schemas import subjects
from opstream_schemas.names import Kind
from tests.disaster.scenario import Scenario
from tests.disaster.stage import STEADY_JOBS, Stage
from tests.support.chaos.jobs import RESOURCE

VIEW = subjects.bucket_stream(subjects.VIEW_BUCKET)
CATALOG = subjects.bucket_stream(subjects.ACTIONS_BUCKET)
HOLDS = subjects.bucket_stream(subjects.HOLDS_BUCKET)
PROJECTORS = (
    subjects.PROJECTOR_CONSUMER,
    subjects.PROJECTOR_DUE_CONSUMER,
    subjects.PROJECTOR_DEADLINES_CONSUMER,
)
RUNNERS = tuple(subjects.runner_consumer(Kind(RESOURCE, job.action)) for job in STEADY_JOBS)


@contextlib.asynccontextmanager
async def jetstream(stage: Stage) -> AsyncIterator[JetStreamContext]:
    """The broker, as an operator with the `nats` tool reaches it."""
    client = await nats.connect(stage.system.nats, connect_timeout=5)
    try:
        yield client.jetstream()
    finally:
        await client.close()


class Deletion(Scenario):
    """Something is deleted."""

    streams: ClassVar[Sequence[str]] = ()
    consumers: ClassVar[Sequence[tuple[str, str]]] = ()
    """Each with its stream before it."""
    is_rebuilt: ClassVar[bool] = False
    """True if `opstream rebuild` has to follow."""
    is_announced: ClassVar[bool] = False
    """True if runners have to announce their actions again; then APIs are restarted, too, since they remember them."""

    async def strike(self, stage: Stage) -> None:
        async with jetstream(stage) as broker:
            for stream, consumer in self.consumers:
                await broker.delete_consumer(stream, consumer)
            for stream in self.streams:
                await broker.delete_stream(stream)
        stage.say(f"deleted: {', '.join((*self.streams, *(name for _, name in self.consumers)))}")

        # While a bucket is missing, a message that needs it is tried again; each try logs this with its traceback.
        stage.excused = "stream not found"
        stage.has_lost_locks = HOLDS in self.streams
        # A consumer of deadlines that begins again may arm those of what has ended; they do no harm.
        stage.has_spare_timers = bool(self.consumers)

    async def recover(self, stage: Stage) -> None:
        await stage.run("provision")
        if self.is_announced:
            stage.operator("restart the runners, which announce their actions")
            await stage.system.restart("runner", "runner-2")
            await stage.system.restart("api", "api-2")
        if self.is_rebuilt:
            await stage.run("rebuild")


class TimersDeletion(Deletion):
    """The stream TIMERS is deleted, with all retries, slots, handed-over locks and deadlines that wait in it."""

    name = "delete-timers"
    streams = (subjects.TIMERS_STREAM,)


class ViewDeletion(Deletion):
    """The bucket `operations`, the view, is deleted."""

    name = "delete-view"
    streams = (VIEW,)
    is_rebuilt = True


class CatalogDeletion(Deletion):
    """The bucket `actions`, the catalog of all actions, is deleted."""

    name = "delete-catalog"
    streams = (CATALOG,)
    is_announced = True


class LocksDeletion(Deletion):
    """The bucket `holds` is deleted, with all locks, queues and rates."""

    name = "delete-locks"
    streams = (HOLDS,)


class RunnerConsumersDeletion(Deletion):
    """The durable consumers of all actions are deleted."""

    name = "delete-runner-consumers"
    consumers = tuple((subjects.OPERATIONS_STREAM, name) for name in RUNNERS)


class ProjectorConsumersDeletion(Deletion):
    """The three durable consumers of the projectors are deleted."""

    name = "delete-projector-consumers"
    consumers = tuple((subjects.OPERATIONS_STREAM, name) for name in PROJECTORS)


class WebhooksDeletion(Deletion):
    """The consumers and the streams of webhooks are deleted, with the deliveries that wait."""

    name = "delete-webhooks"
    has_webhooks = True
    streams = (subjects.WEBHOOKS_STREAM, subjects.DELIVERIES_STREAM)
    consumers = ((subjects.OPERATIONS_STREAM, subjects.WEBHOOKS_CONSUMER),)


class DeletionOfAll(Deletion):
    """All streams and buckets but the journal are deleted at once, and all consumers of the services."""

    name = "delete-all"
    has_webhooks = True
    streams = (
        VIEW,
        CATALOG,
        HOLDS,
        subjects.TIMERS_STREAM,
        subjects.WEBHOOKS_STREAM,
        subjects.DELIVERIES_STREAM,
    )
    consumers = tuple((subjects.OPERATIONS_STREAM, name) for name in (*RUNNERS, *PROJECTORS, "webhooks"))
    is_announced = True
    is_rebuilt = True
