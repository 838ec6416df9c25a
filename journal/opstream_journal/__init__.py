"""The event journal on NATS JetStream, and what is kept beside it on the same broker.

Begin with `journal` (append an event, read an operation), then `command_handler` (decide and append). The layers, from
the top, each of which may import only those below it:

- `forced_end`: an operator ends an operation.
- `command_handler`.
- `stores`: the buckets and streams beside the journal (snapshots, catalog, locks, timers, dead letters, deliveries).
- `journal`.
- `operation_reads` (complete reads, for `journal`) and `runtime` (what a service process needs; crash points).
- `provisioning`: what must exist on the broker.
- `jetstream`: the connection and the calls to the broker.
- `broker_login`: credentials, as nats-py takes them.
- `errors`.

Decisions about operations belong to `opstream_schemas`; HTTP and actions belong to the services.
"""

from .errors import (
    BrokerRefused,
    BrokerUnreachable,
    ConsumerGone,
    Drifted,
    EventTooLarge,
    ForeignStream,
    JournalError,
    JournalFull,
    JournalUnavailable,
    NotProvisioned,
    VersionConflict,
)
from .jetstream.connection import Connection, connect, end_process
from .jetstream.pull_consumer import DeliveredMessage, PullConsumer
from .jetstream.readiness import retry_until_ready
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
    "ForeignStream",
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
