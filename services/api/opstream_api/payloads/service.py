"""The payload store of the API and its uploads, from its settings, and how large a body may be with it or without."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from opstream_api.access.access_control import AccessControl
from opstream_api.access.uploads.upload_token import UploadTokens
from opstream_api.operations.journal_capacity import JournalCapacity
from opstream_api.settings import Settings
from opstream_journal import Connection, Drifted, Journal, retry_until_ready
from opstream_journal.provisioning.topology import EVENT_OVERHEAD, event_room
from opstream_payloads.drivers import OpenedPayloads, open_payloads

from .upload_desk import UploadDesk


async def open_payload_store(
    settings: Settings,
    connection: Connection,
    max_msg_size: int,
    *,
    now: Callable[[], datetime],
    new_id: Callable[[], str],
) -> tuple[OpenedPayloads, int]:
    """Return the payload store, and the bytes of a body that this service takes.

    Args:
        settings: of the service.
        connection: to the broker.
        max_msg_size: bytes of an event that the journal takes; -1 for any number.
        now: returns the time, with time zone.
        new_id: makes a UUID.

    Raises:
        Drifted: the journal takes no event with what stays in one.
        PayloadError: the folder or the bucket can't be used.
        JournalError: the broker did not answer.
    """
    needed = event_room(settings.body_limit)
    if 0 <= max_msg_size < needed:
        raise Drifted(
            f"the journal accepts events of {max_msg_size} bytes, and bodies of {settings.body_limit} bytes need "
            f"{needed}: run 'opstream provision --max-msg-size {needed} --update' or lower --max-body"
        )
    opened = await retry_until_ready(
        connection, lambda: open_payloads(settings.payload_store, connection, now, new_id), settings.connect_timeout
    )
    if opened.store is None and max_msg_size >= 0:
        return opened, min(settings.body_limit, max_msg_size - EVENT_OVERHEAD)
    return opened, settings.body_limit


def open_uploads(
    settings: Settings,
    opened: OpenedPayloads,
    journal: Journal,
    capacity: JournalCapacity,
    access: AccessControl | None,
) -> UploadDesk:
    """Return what takes uploads. Without authentication its codes prove nothing, as nothing else does there."""
    tokens = access.uploads if access is not None else None
    return UploadDesk(opened.payloads, journal, capacity, tokens or UploadTokens(b""), limit=settings.upload_limit)
