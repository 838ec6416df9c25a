"""The event journal on NATS JetStream, the view, the action catalog, and the care of the connection."""

from .errors import (
    BrokerUnreachable,
    ConsumerGone,
    Drifted,
    EventTooLarge,
    JournalError,
    JournalFull,
    JournalUnavailable,
    NotProvisioned,
    RequestRefused,
    VersionConflict,
)
from .jetstream.connection import Link, connect, end_process, insist
from .jetstream.pull_consumer import Delivered, Puller
from .journal import NEW, UNTIL_STORED, Expected, Journal
from .stores.action_catalog import Catalog, announce, look_up
from .stores.snapshots import Entry, View, Write

__all__ = [
    "NEW",
    "UNTIL_STORED",
    "BrokerUnreachable",
    "Catalog",
    "ConsumerGone",
    "Delivered",
    "Drifted",
    "Entry",
    "EventTooLarge",
    "Expected",
    "Journal",
    "JournalError",
    "JournalFull",
    "JournalUnavailable",
    "Link",
    "NotProvisioned",
    "Puller",
    "RequestRefused",
    "VersionConflict",
    "View",
    "Write",
    "announce",
    "connect",
    "end_process",
    "insist",
    "look_up",
]
