"""What opstream needs on the broker: streams, buckets and consumers as data. `provision.py` makes and compares them."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamSource,
    SubjectTransform,
)

from opstream_schemas import subjects
from opstream_schemas.action_spec import DAY_SECONDS, ActionSpec
from opstream_schemas.events import EVENT_DATA, Requested

from . import webhook_topology

BODY_LIMIT: Final = 256 * 1024
"""Bytes of a submit's body, and of a result, by default."""
EVENT_OVERHEAD: Final = 16 * 1024
"""Bytes that an event may need beside the client's own: envelope, headers, error texts."""
AGE_MARGIN: Final = DAY_SECONDS
"""Seconds that events outlive deadline and retention, so that no status outlives its journal."""

_DUPLICATE_WINDOW: Final = 15.0
"""Seconds. The broker keeps each message id in memory for so long. The guard of an append makes a retry safe without
them; within the window a replicated stream answers one with less reading."""
_PROJECTOR_ACK_WAIT: Final = 30.0
_PROJECTOR_MAX_ACK_PENDING: Final = 10_000
DEADLINES_ACK_WAIT: Final = 120.0
"""Seconds; much longer than `projector_deadlines` trails behind."""
_RUNNER_MAX_ACK_PENDING: Final = 1_000
_MAX_WAITING: Final = 512


class Sizing(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator chooses; a service does not care."""

    replicas: int = 1
    """Copies of each stream; 3 in a cluster."""
    max_age: float = 30 * DAY_SECONDS
    """Seconds that events are kept."""
    max_bytes: int = -1
    """Bytes of the journal; -1 for no limit. When it is full, submits are refused."""
    max_msg_size: int = BODY_LIMIT + EVENT_OVERHEAD
    """Bytes of one event, headers included."""


SIZING_FIELDS: Final = frozenset({"num_replicas", "max_age", "max_bytes", "max_msg_size"})


def streams(sizing: Sizing) -> list[StreamConfig]:
    """The streams, those behind the buckets included. TIMERS comes first: OPERATIONS sources it."""
    timers = StreamConfig(
        name=subjects.TIMERS_STREAM,
        subjects=list(subjects.TIMERS_SUBJECTS),
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType.FILE,
        num_replicas=sizing.replicas,
        allow_msg_schedules=True,
        allow_rollup_hdrs=True,  # the server sets it with schedules; said here so that it is no drift
        allow_direct=True,
        duplicate_window=_DUPLICATE_WINDOW,
    )
    operations = StreamConfig(
        name=subjects.OPERATIONS_STREAM,
        subjects=[subjects.event_type_subject(data.name) for data in EVENT_DATA],
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.NEW,
        storage=StorageType.FILE,
        num_replicas=sizing.replicas,
        max_age=sizing.max_age,
        max_bytes=sizing.max_bytes,
        max_msg_size=sizing.max_msg_size,
        deny_delete=True,
        deny_purge=True,
        allow_direct=True,
        duplicate_window=_DUPLICATE_WINDOW,
        sources=[
            StreamSource(
                name=subjects.TIMERS_STREAM,
                subject_transforms=[
                    SubjectTransform(src=subjects.WAKE_SOURCE, dest=subjects.WAKE_DESTINATION),
                    SubjectTransform(src=subjects.DUE_SOURCE, dest=subjects.DUE_DESTINATION),
                ],
            )
        ],
    )
    # A rebuild writes many snapshots at once; one at a time each would wait for the disk (docs/adr/0017).
    view = _bucket_stream(subjects.VIEW_BUCKET, sizing, allow_atomic=True)
    actions = _bucket_stream(subjects.ACTIONS_BUCKET, sizing)
    # Each write to a hold rolls up its key (`cells.py`); the limit would be quicker, and leave no trace on the disk.
    holds = _bucket_stream(subjects.HOLDS_BUCKET, sizing, max_msgs_per_subject=-1)
    return [timers, operations, view, actions, holds, *webhook_topology.webhook_streams(sizing.replicas)]


def projector_consumers() -> list[ConsumerConfig]:
    """The durables of the projector: one without a filter (a wildcard filter would make the server scan), one for
    deadlines that fire, and one that trails behind the requests, to arm the deadlines of those still open then."""
    shared: dict[str, Any] = {
        "ack_policy": AckPolicy.EXPLICIT,
        "deliver_policy": DeliverPolicy.ALL,
        "ack_wait": _PROJECTOR_ACK_WAIT,
        "max_deliver": -1,
        "max_ack_pending": _PROJECTOR_MAX_ACK_PENDING,
        "max_waiting": _MAX_WAITING,
    }
    return [
        ConsumerConfig(durable_name=subjects.PROJECTOR_CONSUMER, **shared),
        ConsumerConfig(
            durable_name=subjects.PROJECTOR_DUE_CONSUMER, filter_subjects=[subjects.DUE_DESTINATION], **shared
        ),
        ConsumerConfig(
            durable_name=subjects.PROJECTOR_DEADLINES_CONSUMER,
            filter_subjects=[subjects.event_type_subject(Requested.name)],
            headers_only=True,
            **(shared | {"ack_wait": DEADLINES_ACK_WAIT}),
        ),
    ]


def shared_consumers() -> list[tuple[str, ConsumerConfig]]:
    """The durables that `provision` makes, each with its stream; runners make their own."""
    return [
        (subjects.OPERATIONS_STREAM, config) for config in projector_consumers()
    ] + webhook_topology.webhook_consumers()


def runner_consumer(spec: ActionSpec) -> ConsumerConfig:
    """The durable on which the runners of one action compete. Its ack_wait is the lease of an attempt."""
    return ConsumerConfig(
        durable_name=subjects.runner_consumer(spec.kind),
        filter_subjects=list(subjects.runner_filters(spec.kind)),
        ack_policy=AckPolicy.EXPLICIT,
        deliver_policy=DeliverPolicy.ALL,
        ack_wait=spec.policy.lease,
        max_deliver=-1,
        max_ack_pending=spec.policy.max_concurrency or _RUNNER_MAX_ACK_PENDING,
        max_waiting=_MAX_WAITING,
    )


def format_duration(seconds: float) -> str:
    """An age as `--max-age` takes it: `92d`, `36h`, `90.5s`; `unlimited` for 0."""
    if not seconds:
        return "unlimited"
    for unit, length in (("d", DAY_SECONDS), ("h", 3_600.0)):
        if seconds % length == 0:
            return f"{seconds / length:.15g}{unit}"
    return f"{seconds:.15g}s"


def _bucket_stream(
    bucket: str, sizing: Sizing, *, max_msgs_per_subject: int = 1, allow_atomic: bool | None = None
) -> StreamConfig:
    # Made as a stream, not by nats-py's key-value API: that one would add delete markers, after which a key whose
    # TTL ran out reads as an empty value instead of "not found" (docs/nats.md, Buckets).
    return StreamConfig(
        name=subjects.bucket_stream(bucket),
        subjects=[subjects.bucket_subject(bucket, ">")],
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.NEW,
        storage=StorageType.FILE,
        num_replicas=sizing.replicas,
        max_msgs_per_subject=max_msgs_per_subject,
        allow_rollup_hdrs=True,
        deny_delete=True,
        allow_direct=True,
        allow_msg_ttl=True,
        allow_atomic=allow_atomic,
        duplicate_window=_DUPLICATE_WINDOW,
    )
