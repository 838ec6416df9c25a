"""The streams and consumers of webhooks on the broker, as data."""

from __future__ import annotations

from typing import Any, Final

from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)

from opstream_schemas import subjects
from opstream_schemas.webhook_delivery import OUTCOME_EVENTS

DAY: Final = 86_400.0
RECORDS_MAX_AGE: Final = 30 * DAY
"""Seconds for which records of attempts are kept."""
DELIVERY_ACK_WAIT: Final = 10.0
"""Seconds after which the messages of a dead process are redelivered. Longer attempts extend their lease."""

_DUPLICATE_WINDOW: Final = 15.0
_MAX_ACK_PENDING: Final = 10_000
_MAX_WAITING: Final = 512


def webhook_streams(replicas: int) -> list[StreamConfig]:
    """Return the streams of webhooks."""
    shared: dict[str, Any] = {
        "storage": StorageType.FILE,
        "num_replicas": replicas,
        "allow_direct": True,
        "duplicate_window": _DUPLICATE_WINDOW,
    }
    waiting = StreamConfig(
        name=subjects.WEBHOOKS_STREAM,
        subjects=list(subjects.WEBHOOKS_SUBJECTS),
        retention=RetentionPolicy.WORK_QUEUE,
        allow_msg_schedules=True,
        allow_rollup_hdrs=True,  # the broker sets it with schedules; set here so that it is no drift
        **shared,
    )
    records = StreamConfig(
        name=subjects.DELIVERIES_STREAM,
        subjects=list(subjects.DELIVERIES_SUBJECTS),
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.NEW,
        max_age=RECORDS_MAX_AGE,
        deny_delete=True,
        deny_purge=True,
        **shared,
    )
    return [waiting, records]


def webhook_consumers() -> list[tuple[str, ConsumerConfig]]:
    """Return the durables that all replicas of the service share, each with its stream."""
    shared: dict[str, Any] = {
        "ack_policy": AckPolicy.EXPLICIT,
        "deliver_policy": DeliverPolicy.ALL,
        "ack_wait": DELIVERY_ACK_WAIT,
        "max_deliver": -1,
        "max_ack_pending": _MAX_ACK_PENDING,
        "max_waiting": _MAX_WAITING,
    }
    outcomes = [subjects.event_type_subject(event) for event in OUTCOME_EVENTS]
    return [
        (
            subjects.OPERATIONS_STREAM,
            ConsumerConfig(durable_name=subjects.WEBHOOKS_CONSUMER, filter_subjects=outcomes, **shared),
        ),
        (
            subjects.WEBHOOKS_STREAM,
            ConsumerConfig(
                durable_name=subjects.WEBHOOKS_DUE_CONSUMER, filter_subjects=[subjects.WEBHOOKS_DUE_FILTER], **shared
            ),
        ),
    ]
