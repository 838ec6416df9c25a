"""Opens a payload store by its location. obstore is loaded only for S3."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from opstream_journal import Connection
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_journal.provisioning.topology import INSTALLATION
from opstream_schemas.payloads.object_subjects import PAYLOADS_STREAM

from .documents import Documents
from .errors import NoObjectStore
from .folder_store import FolderStore
from .jetstream_store import JetStreamStore
from .location import StoreLocation
from .payloads import Payloads
from .store import PayloadStore

logger = logging.getLogger(__name__)

_NO_BUCKET = (
    "the broker has no object store for payloads: run 'opstream provision --update', and 'opstream broker-config' "
    "where each role has a login of its own"
)


async def open_store(location: StoreLocation, connection: Connection, now: Callable[[], datetime]) -> PayloadStore:
    """Return a store, started.

    Args:
        location: where it is.
        connection: to the broker, whose identity is the prefix of all keys in a folder or a bucket.
        now: returns the time, with time zone.

    Raises:
        NoObjectStore: the broker has none yet, nor an identity.
        StoreUnavailable: the folder can't be used.
        JournalError: the broker did not answer.
    """
    config = await admin.stream_config(connection, PAYLOADS_STREAM)
    installation = "" if config is None else (config.metadata or {}).get(INSTALLATION, "")
    if not installation:
        raise NoObjectStore(_NO_BUCKET)
    store: PayloadStore
    if location.folder:
        store = FolderStore(location.folder, installation)
    elif location.bucket:
        from .s3_store import S3Payloads

        store = S3Payloads(location.bucket, location.prefix, installation)
    else:
        store = JetStreamStore(connection, now)
    await store.start()
    return store


class OpenedPayloads(NamedTuple):
    """What a service has of payloads."""

    documents: Documents
    """Its inputs and results; without a store they must fit into their events, as in earlier versions."""
    payloads: Payloads | None
    """None if the broker has no object store yet."""
    store: PayloadStore | None
    """Likewise."""


async def open_payloads(
    location: StoreLocation, connection: Connection, now: Callable[[], datetime], new_id: Callable[[], str]
) -> OpenedPayloads:
    """Open the payload store of a service. Without an object store on the broker the log says what to run.

    Args:
        location: where it is.
        connection: to the broker.
        now: returns the time, with time zone.
        new_id: makes a UUID.

    Raises:
        PayloadError: the folder or the bucket can't be used.
        JournalError: the broker did not answer.
    """
    try:
        store = await open_store(location, connection, now)
    except NoObjectStore as missing:
        logger.warning("inputs and results must fit into an event: %s", missing)
        return OpenedPayloads(Documents(None), None, None)
    payloads = Payloads(store, new_id)
    return OpenedPayloads(Documents(payloads), payloads, store)
