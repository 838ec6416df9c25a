"""The API keys after a restore: those that were revoked after the backup are usable again (docs/backup.md)."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from opstream_api.access.keys.api_key import ApiKeyRecord, decode_key, encode_key
from opstream_journal import Connection, JournalUnavailable
from opstream_journal.stores.access_bucket import AccessBucket
from opstream_schemas.errors import InvalidName

_TRIES: Final = 5


class RestoredKeys(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the API keys."""

    usable: int
    """Keys that were usable once the bucket was restored."""
    is_revoked: bool
    """True if the restore has revoked them."""


async def settle_keys(connection: Connection, now: datetime, *, is_revoking: bool) -> RestoredKeys:
    """Count the usable API keys of a broker that has the bucket `access`, and revoke them if that was asked for.

    Args:
        connection: the connection.
        now: the time, with a time zone.
        is_revoking: whether to revoke them.

    Raises:
        NotProvisioned: there is no such bucket.
        JournalError: the broker did not answer, or refused.
    """
    bucket = AccessBucket(connection)
    await bucket.start()
    try:
        usable = [key for key, data in (await bucket.records()).items() if _usable(data, now) is not None]
        if is_revoking:
            for key in usable:
                await _revoke(bucket, key, now)
    finally:
        await bucket.stop()
    return RestoredKeys(usable=len(usable), is_revoked=is_revoking)


async def _revoke(bucket: AccessBucket, key_id: str, now: datetime) -> None:
    for _ in range(_TRIES):
        entry = await bucket.record(key_id)
        record = _usable(entry.data, now)
        if record is None:
            return
        revoked = encode_key(msgspec.structs.replace(record, revoked=now))
        if await bucket.put_record(key_id, revoked, entry.revision):
            return
    raise JournalUnavailable(f"the API key {key_id} keeps changing", maybe_stored=False)


def _usable(data: bytes, now: datetime) -> ApiKeyRecord | None:
    """Return the record of a key that opens the API; None for another one."""
    try:
        record = decode_key(data)
    except InvalidName:
        return None  # no API takes it
    return record if record.is_usable(now) else None
