"""Finds out that the broker has no room: the limit of the server, of the account, or of a stream was reached.

A process that stores something is refused, and knows. One that has nothing to store now asks: for the server's limit
with a batch that is always refused, for lack of room before anything else; so nothing is stored.
"""

from __future__ import annotations

import secrets
from typing import Final

import msgspec

from opstream_journal.errors import JournalError
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.connection import Connection
from opstream_journal.storage_limit import ACCOUNT_LIMIT, StorageLimit, limit_of_refusal, stream_limit
from opstream_schemas import subjects

from .conditions import Conditions

STORAGE_LIMIT: Final = "StorageLimitReached"

_PROBE_SUBJECT: Final = subjects.bucket_subject(subjects.VIEW_BUCKET, "opstream-probe")
_NEVER: Final = str(2**53)
"""A stream sequence that no key has."""
_LEAST_ROOM: Final = 1024
"""Bytes; an event needs more."""


class _Limits(msgspec.Struct, frozen=True):
    max_storage: int = -1


class _Tier(msgspec.Struct, frozen=True):
    storage: int = 0
    limits: _Limits = _Limits()


class _Account(msgspec.Struct, frozen=True):
    storage: int = 0
    limits: _Limits = _Limits()
    tiers: dict[str, _Tier] = {}


_decode_account: Final = msgspec.json.Decoder(_Account).decode
_decode_ack: Final = msgspec.json.Decoder(rpc.PubAck).decode


class StorageWatch:
    """Looks for room on the broker of one connection.

    Args:
        connection: the connection.
        conditions: of this process.
    """

    def __init__(self, connection: Connection, conditions: Conditions) -> None:
        self._connection = connection
        self._conditions = conditions

    async def look(self, used: int, limit: int) -> None:
        """Look once, in at most 4 s. Nothing is raised.

        Args:
            used: bytes of the journal.
            limit: its `max_bytes`; 0 or less for none.
        """
        refused = self._connection.refused
        found = [*refused.recent(), *await self._probe_server(), *await self._ask_account()]
        if limit > 0 and used + _LEAST_ROOM > limit:
            found.append(stream_limit(subjects.OPERATIONS_STREAM))
        if not found:
            refused.clear()
            self._conditions.resolve(STORAGE_LIMIT)
            return
        reached = dict.fromkeys(found)
        times = f"; this process was refused {refused.count:,} times so far" if refused.count else ""
        self._conditions.report(
            STORAGE_LIMIT,
            "; ".join(one.what for one in reached) + times,
            "; ".join(one.next_step for one in reached) + ". What was accepted then goes on by itself",
            is_blocking=True,
        )

    async def _probe_server(self) -> list[StorageLimit]:
        # A batch is checked for room before its expected versions are, a single message after that.
        headers = {
            "Nats-Batch-Id": secrets.token_hex(8),
            "Nats-Batch-Sequence": "1",
            "Nats-Batch-Commit": "1",
            "Nats-Expected-Last-Subject-Sequence": _NEVER,
        }
        try:
            answer = await rpc.call(
                self._connection, _PROBE_SUBJECT, headers=headers, is_answer=rpc.ack_check(_PROBE_SUBJECT), payload=b""
            )
            error = _decode_ack(answer.data).error
        except (JournalError, msgspec.MsgspecError):
            return []
        if error is None:
            return []
        limit = limit_of_refusal(error.err_code, error.description, subjects.bucket_stream(subjects.VIEW_BUCKET))
        return [] if limit is None else [limit]

    async def _ask_account(self) -> list[StorageLimit]:
        try:
            account = _decode_account((await rpc.call(self._connection, "$JS.API.INFO")).data)
        except (JournalError, msgspec.MsgspecError):
            return []
        tiers = [_Tier(account.storage, account.limits), *account.tiers.values()]
        is_full = any(0 < tier.limits.max_storage < tier.storage + _LEAST_ROOM for tier in tiers)
        return [ACCOUNT_LIMIT] if is_full else []
