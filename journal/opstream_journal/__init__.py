"""The event journal on NATS JetStream, the view, the action catalog, and the care of the connection."""

from .errors import (
    BrokerRefused,
    BrokerUnreachable,
    ConsumerGone,
    Drifted,
    EventTooLarge,
    JournalError,
    JournalFull,
    JournalUnavailable,
    NotProvisioned,
    VersionConflict,
)
from .jetstream.connection import Connection, connect, end_process, retry_until_ready
from .jetstream.pull_consumer import DeliveredMessage, PullConsumer
from .journal import NEW_OPERATION, UNTIL_STORED, ExpectedVersion, Journal
from .stores.action_catalog import ActionCatalog, announce_action, find_action
from .stores.snapshots import SnapshotEntry, SnapshotStore, SnapshotWrite

__all__ = [
    "NEW_OPERATION",
    "UNTIL_STORED",
    "ActionCatalog",
    "BrokerRefused",
    "BrokerUnreachable",
    "Connection",
    "ConsumerGone",
    "DeliveredMessage",
    "Drifted",
    "EventTooLarge",
    "ExpectedVersion",
    "Journal",
    "JournalError",
    "JournalFull",
    "JournalUnavailable",
    "NotProvisioned",
    "PullConsumer",
    "SnapshotEntry",
    "SnapshotStore",
    "SnapshotWrite",
    "VersionConflict",
    "announce_action",
    "connect",
    "end_process",
    "find_action",
    "retry_until_ready",
]
