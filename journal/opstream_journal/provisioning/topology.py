"""The streams, buckets and consumers of opstream on the broker, as data. `provision` creates and compares them."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    RePublish,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamSource,
    SubjectTransform,
)

from opstream_schemas import subjects
from opstream_schemas.action_spec import DAY_SECONDS, ActionSpec
from opstream_schemas.events import EVENT_DATA, Requested
from opstream_schemas.operation.priority import QUEUED_PRIORITIES
from opstream_schemas.payloads.object_meta import CHUNK
from opstream_schemas.payloads.object_subjects import PAYLOADS_STREAM, PAYLOADS_SUBJECTS

from . import access_topology, webhook_topology

INLINE_LIMIT: Final = 256 * 1024
"""Bytes of an input or a result up to which it stays in its event. A larger one is a payload (docs/adr/0075)."""
BODY_LIMIT: Final = 4 * 1024 * 1024
"""Bytes of a submit's body, and of a result, by default: it is in memory as a whole while it is checked."""
EVENT_OVERHEAD: Final = 16 * 1024
"""Bytes that an event may need beside the client's own: envelope, headers, error texts."""
AGE_MARGIN: Final = DAY_SECONDS
"""Seconds that events outlive the deadline and the retention, so that no status outlives its events."""

PRESENCE_AGE: Final = 365 * DAY_SECONDS
"""Seconds for which it is known when an action had its last runner."""
MAX_PRESENCE_RECORDS: Final = 50_000
"""Records about runners: one for each action and process, and one for each action."""
PRESENCE_LIMIT: Final = 2 * 1024
"""Bytes of one of them."""
SCHEDULE_HISTORY: Final = 200
"""Decisions about a schedule that are kept, and records of its moments."""
MAX_SCHEDULE_EVENTS: Final = 2_000_000
"""Messages of all schedules."""
MAX_SCHEDULE_BYTES: Final = 1024 * 1024 * 1024
"""Bytes of them from which on services make no new schedule. The stream has no such limit: the broker would set that
room aside."""
SCHEDULE_LIMIT: Final = 64 * 1024
"""Bytes of the definition of a schedule."""

INSTALLATION: Final = "opstream.installation"
"""Key in the metadata of the stream of payloads: a UUID of this installation, below which its payloads lie in a folder
or on S3 (docs/adr/0075). Backups keep it."""

_DUPLICATE_WINDOW: Final = 15.0
"""Seconds for which the broker keeps a message id in memory. The expected version makes a retried append safe without
it; within the window a replicated stream answers a retry with less reading."""
_PROJECTOR_ACK_WAIT: Final = 30.0
_PROJECTOR_MAX_ACK_PENDING: Final = 10_000
DEADLINES_ACK_WAIT: Final = 120.0
"""Seconds; much longer than the deadline scanner waits before it looks at a request."""
_RUNNER_MAX_ACK_PENDING: Final = 1_000
_MAX_WAITING: Final = 512


class Sizing(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator chooses. Services work with any of it."""

    replicas: int = 1
    """The copies of each stream; 3 in a cluster."""
    max_age: float = 30 * DAY_SECONDS
    """Seconds for which events are kept."""
    max_bytes: int = -1
    """Bytes of the journal; -1 for no limit. A full journal refuses submits."""
    max_msg_size: int = INLINE_LIMIT + EVENT_OVERHEAD
    """Bytes of one event, headers included."""


SIZING_FIELDS: Final = frozenset({"num_replicas", "max_age", "max_bytes", "max_msg_size"})

OPTIONAL_STREAMS: Final = frozenset(
    {
        subjects.bucket_stream(subjects.ACCESS_BUCKET),
        subjects.ACCESS_LOG_STREAM,
        subjects.bucket_stream(subjects.RUNNERS_BUCKET),
        subjects.SCHEDULES_STREAM,
        subjects.bucket_stream(subjects.CONTROLS_BUCKET),
        PAYLOADS_STREAM,
        subjects.bucket_stream(subjects.OPERATION_KEYS_BUCKET),
    }
)
"""Streams that services do without: until they are told to use them, or with less to show. The service that needs one
checks for it."""

OPTIONAL_FIELDS: Final = frozenset({"allow_atomic", "republish"})
"""Services work without these, only slower: an upgrade may start them before it runs `provision --update`."""


SEALABLE_STREAM: Final = subjects.bucket_stream(subjects.ACTIONS_BUCKET)
"""The stream of the catalog, which opstream writes without rollups. While it allows them, each login that may announce
one action may remove all others: a message with `Nats-Rollup: all` empties a stream."""
SEAL: Final = "allow_rollup_hdrs"


def streams(sizing: Sizing) -> list[StreamConfig]:
    """Return the streams, including those of the buckets. TIMERS comes first, because OPERATIONS sources it."""
    timers = StreamConfig(
        name=subjects.TIMERS_STREAM,
        subjects=list(subjects.TIMERS_SUBJECTS),
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType.FILE,
        num_replicas=sizing.replicas,
        allow_msg_schedules=True,
        allow_rollup_hdrs=True,  # the broker sets it with schedules; set here so that it is no drift
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
        allow_atomic=True,  # for the group commit (docs/adr/0038)
        republish=RePublish(src=">", dest=subjects.live_filter(subjects.OPERATIONS_STREAM)),  # docs/adr/0070
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
    # Snapshots are written in batches; single ones would each wait for the disk (docs/adr/0017, 0041).
    view = _bucket_stream(subjects.VIEW_BUCKET, sizing, allow_atomic=True)
    actions = _bucket_stream(subjects.ACTIONS_BUCKET, sizing)
    # Each write rolls up its key (`jetstream/kv.py`). A limit would be faster, but leave no trace on the disk.
    locks = _bucket_stream(subjects.HOLDS_BUCKET, sizing, max_msgs_per_subject=-1)
    access = _bucket_stream(subjects.ACCESS_BUCKET, sizing, max_msgs_per_subject=-1)
    access_log = access_topology.access_log_stream(sizing.replicas)
    webhooks = webhook_topology.webhook_streams(sizing.replicas)
    schedules = schedules_stream(sizing.replicas)
    # Without rollups, so that who may write the key of one action can't remove those of others.
    controls = _bucket_stream(subjects.CONTROLS_BUCKET, sizing, has_rollups=False)
    return [
        timers,
        operations,
        view,
        actions,
        locks,
        *webhooks,
        access,
        access_log,
        _presence_stream(sizing),
        schedules,
        controls,
        payloads_stream(sizing.replicas),
        _key_stream(sizing),
    ]


def schedules_stream(replicas: int) -> StreamConfig:
    """Return the stream SCHEDULES. Of each subject the oldest messages go; a full stream takes nothing new."""
    return StreamConfig(
        name=subjects.SCHEDULES_STREAM,
        subjects=list(subjects.SCHEDULES_SUBJECTS),
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.NEW,
        storage=StorageType.FILE,
        num_replicas=replicas,
        max_msgs=MAX_SCHEDULE_EVENTS,
        max_msgs_per_subject=SCHEDULE_HISTORY,
        max_msg_size=SCHEDULE_LIMIT + EVENT_OVERHEAD,
        deny_delete=True,
        deny_purge=True,
        allow_direct=True,
        duplicate_window=_DUPLICATE_WINDOW,
    )


def payloads_stream(replicas: int) -> StreamConfig:
    """Return the stream of JetStream's object store for payloads.

    It takes no rollups: with one message, who may store a payload could remove all others.
    """
    return StreamConfig(
        name=PAYLOADS_STREAM,
        subjects=list(PAYLOADS_SUBJECTS),
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.NEW,
        storage=StorageType.FILE,
        num_replicas=replicas,
        max_msg_size=CHUNK + EVENT_OVERHEAD,
        deny_delete=True,
        allow_direct=True,
        duplicate_window=_DUPLICATE_WINDOW,
    )


def projector_consumers() -> list[ConsumerConfig]:
    """Return the durables of the projector.

    One is for all events, without a filter: a wildcard filter would make the broker scan. One is for due deadlines. One
    is for requests, whose deadlines are scheduled if they are still open after a while.
    """
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
    """Return the durables that each system has, each with its stream."""
    return [
        (subjects.OPERATIONS_STREAM, config) for config in projector_consumers()
    ] + webhook_topology.webhook_consumers()


def runner_consumer(spec: ActionSpec) -> ConsumerConfig:
    """Return the durable that the runners of one action share. Its ack_wait is the lease of an attempt."""
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


def runner_consumers(spec: ActionSpec) -> list[ConsumerConfig]:
    """Return the durables of one action: the one that each has, and those of priorities, if it has them."""
    first = runner_consumer(spec)
    queues = QUEUED_PRIORITIES if spec.policy.priority else ()
    return [
        first,
        *(
            first.evolve(
                durable_name=subjects.runner_consumer(spec.kind, priority),
                filter_subjects=[subjects.priority_filter(spec.kind, priority)],
            )
            for priority in queues
        ),
    ]


def event_room(document_limit: int) -> int:
    """Return the bytes of an event that the journal must take, if documents have so many bytes at most."""
    return min(document_limit, INLINE_LIMIT) + EVENT_OVERHEAD


def format_duration(seconds: float) -> str:
    """Format seconds as `--max-age` accepts them: `92d`, `36h`, `90.5s`; `unlimited` for 0."""
    if not seconds:
        return "unlimited"
    for unit, length in (("d", DAY_SECONDS), ("h", 3_600.0)):
        if seconds % length == 0:
            return f"{seconds / length:.15g}{unit}"
    return f"{seconds:.15g}s"


def _presence_stream(sizing: Sizing) -> StreamConfig:
    """Return the stream of the bucket `runners`. What a stolen key of a runner writes there fills no disk, and removes
    nothing of another action: there are no rollups, and when it is full the oldest record goes."""
    return StreamConfig(
        name=subjects.bucket_stream(subjects.RUNNERS_BUCKET),
        subjects=[subjects.bucket_subject(subjects.RUNNERS_BUCKET, ">")],
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.OLD,
        storage=StorageType.FILE,
        num_replicas=sizing.replicas,
        max_age=PRESENCE_AGE,
        max_msgs=MAX_PRESENCE_RECORDS,
        max_msgs_per_subject=1,
        max_msg_size=PRESENCE_LIMIT,
        deny_delete=True,
        allow_direct=True,
        allow_msg_ttl=True,
        duplicate_window=_DUPLICATE_WINDOW,
    )


def _key_stream(sizing: Sizing) -> StreamConfig:
    """Return the stream of the bucket `operation_keys`: messages of it can be deleted one by one, which overwrites them
    on the disk. A limit for each name would remove a key without that."""
    bucket = _bucket_stream(subjects.OPERATION_KEYS_BUCKET, sizing, max_msgs_per_subject=-1)
    return bucket.evolve(deny_delete=False)


def _bucket_stream(
    bucket: str,
    sizing: Sizing,
    *,
    max_msgs_per_subject: int = 1,
    allow_atomic: bool | None = None,
    has_rollups: bool = True,
) -> StreamConfig:
    # A stream, and not nats-py's key-value API: that adds delete markers, and then a key whose TTL ran out reads as an
    # empty value instead of "not found" (docs/nats.md, Buckets).
    return StreamConfig(
        name=subjects.bucket_stream(bucket),
        subjects=[subjects.bucket_subject(bucket, ">")],
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.NEW,
        storage=StorageType.FILE,
        num_replicas=sizing.replicas,
        max_msgs_per_subject=max_msgs_per_subject,
        allow_rollup_hdrs=has_rollups,
        deny_delete=True,
        allow_direct=True,
        allow_msg_ttl=True,
        allow_atomic=allow_atomic,
        duplicate_window=_DUPLICATE_WINDOW,
    )
