"""The stream ARCHIVE: every event of the journal once more, on few subjects and compressed, for years of audit.

It exists only if an operator asks for it, and no service needs it. The broker fills it: it copies the events of
OPERATIONS in their order, from the first one that still exists. docs/adr/0020 says why it is not a mirror.
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
from opstream_schemas.integrity import archive_subjects

from . import jetstream_admin as admin
from .topology import format_duration


class ArchiveSizing(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator chooses for the archive."""

    max_age: float = 0.0
    """Seconds for which an event is kept, counted from its copying; 0 for ever."""


def archive_stream(archive: ArchiveSizing, *, replicas: int) -> StreamConfig:
    """Return the expected configuration of the stream."""
    return StreamConfig(
        name=subjects.ARCHIVE_STREAM,
        subjects=[],  # only the broker writes to it
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.NEW,
        storage=StorageType.FILE,
        num_replicas=replicas,
        max_age=archive.max_age,
        compression=StoreCompression.S2,
        deny_delete=True,
        deny_purge=True,
        allow_direct=True,
        # No window: it would drop a message id that the journal has twice (from a foreign writer) while the archive
        # catches up. The broker knows by the source's sequence what it has copied.
        duplicate_window=0,
        sources=[
            StreamSource(
                name=subjects.OPERATIONS_STREAM,
                subject_transforms=[
                    SubjectTransform(src=archive_subjects.ARCHIVE_SOURCE, dest=archive_subjects.ARCHIVE_DESTINATION)
                ],
            )
        ],
    )


async def current_archive(connection: Connection) -> ArchiveSizing | None:
    """Return the sizing of the archive now; None without an archive.

    Raises:
        JournalError: the broker refused or did not answer.
    """
    config = await admin.stream_config(connection, subjects.ARCHIVE_STREAM)
    return None if config is None else ArchiveSizing(max_age=config.max_age or 0.0)


def check_archive_age(archive: ArchiveSizing, journal_age: float) -> None:
    """Check that the archive keeps events for longer than the journal, whose age is in seconds (0: for ever).

    Raises:
        Drifted: it does not.
    """
    if archive.max_age and not 0 < journal_age < archive.max_age:
        raise Drifted(
            f"--archive-max-age must be longer than the journal's --max-age ({format_duration(journal_age)}), or "
            f"unlimited: an archive that expires first has nothing that the journal does not have, too"
        )
