"""The stream of denials and acts of administrators, as data. It is bounded by its limits, whatever is written to it."""

from __future__ import annotations

from typing import Final

from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from opstream_schemas import subjects
from opstream_schemas.logs.access_log import RECORD_LIMIT

DAY: Final = 86_400.0
MAX_AGE: Final = 90 * DAY
"""Seconds for which records are kept."""
MAX_PER_SUBJECT: Final = 10_000
"""Records of denials of callers, of denials of strangers, and of each kind of acts. Then the oldest of these goes."""
MAX_RECORDS: Final = 100_000
"""Of all kinds. There is no limit of bytes besides: the broker would set that much room aside, also for no record."""

_DUPLICATE_WINDOW: Final = 15.0


def access_log_stream(replicas: int) -> StreamConfig:
    """Return the stream ACCESS_LOG. When it is full the oldest records go, so that writers never wait."""
    return StreamConfig(
        name=subjects.ACCESS_LOG_STREAM,
        subjects=list(subjects.ACCESS_LOG_SUBJECTS),
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.OLD,
        storage=StorageType.FILE,
        num_replicas=replicas,
        max_age=MAX_AGE,
        max_msgs=MAX_RECORDS,
        max_msgs_per_subject=MAX_PER_SUBJECT,
        max_msg_size=RECORD_LIMIT,
        deny_delete=True,
        deny_purge=True,
        allow_direct=True,
        duplicate_window=_DUPLICATE_WINDOW,
    )
