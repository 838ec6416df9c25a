"""The stream ARCHIVE: every event of the journal once more, on few subjects and compressed, for years of audit.

Caller: `provision.py`, for operators who ask for it; no service needs it. The broker fills it by itself: it copies what
OPERATIONS stores, in its order, from the first event that is still there. Why it is not a mirror: docs/adr/0020.
"""

from __future__ import annotations

import msgspec
from nats.js.api import (
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StoreCompression,
    StreamConfig,
    StreamSource,
    SubjectTransform,
)

from opstream_journal.errors import Drifted
from opstream_journal.jetstream.connection import Connection
from opstream_schemas import subjects

from . import jetstream_admin as admin
from .topology import format_duration


class ArchiveSizing(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator chooses of the archive."""

    max_age: float = 0.0
    """Seconds that an event stays there, counted from its copying; 0 for ever."""


def archive_stream(archive: ArchiveSizing, *, replicas: int) -> StreamConfig:
    """The stream as it should be."""
    return StreamConfig(
        name=subjects.ARCHIVE_STREAM,
        subjects=[],  # nobody but the broker writes to it
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.NEW,
        storage=StorageType.FILE,
        num_replicas=replicas,
        max_age=archive.max_age,
        compression=StoreCompression.S2,
        deny_delete=True,
        deny_purge=True,
        allow_direct=True,
        # No window: an id that the journal holds twice (a foreign writer's) would be left out while the archive
        # catches up. The source's sequence tells the broker what it has copied.
        duplicate_window=0,
        sources=[
            StreamSource(
                name=subjects.OPERATIONS_STREAM,
                subject_transforms=[SubjectTransform(src=subjects.ARCHIVE_SOURCE, dest=subjects.ARCHIVE_DESTINATION)],
            )
        ],
    )


async def current_archive(connection: Connection) -> ArchiveSizing | None:
    """The archive that there is; None without one.

    Raises:
        JournalError: the broker refused or did not answer.
    """
    config = await admin.stream_config(connection, subjects.ARCHIVE_STREAM)
    return None if config is None else ArchiveSizing(max_age=config.max_age or 0.0)


def check_archive_age(archive: ArchiveSizing, journal_age: float) -> None:
    """Check that the archive keeps events for longer than the journal, whose age in seconds is given (0: for ever).

    Raises:
        Drifted: it does not.
    """
    if archive.max_age and not 0 < journal_age < archive.max_age:
        raise Drifted(
            f"--archive-max-age must be longer than the journal's --max-age ({format_duration(journal_age)}), or "
            f"unlimited: an archive that forgets first holds nothing that the journal does not hold, too"
        )
