"""A service that asks for API keys, on a real broker, and callers with keys of their own.

async with serving_with_keys(broker, link) as desk:
    ann = await desk.caller("acme", "ann", "submit", "read")
    response = await ann.submit(headers={"Operation-Id": "one"})
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec

from opstream_api.access.keys.api_key import ApiKeyRecord, create_key, decode_key, encode_key
from opstream_api.access.operation_access import OperationIds
from opstream_journal import Connection
from opstream_journal.stores.access_bucket import AccessBucket
from tests.support.api.service import INPUT, JSON, Api, serving
from tests.support.broker.server import Broker
from tests.support.system.wait import eventually


class CallerWithKey:
    """A caller and its key."""

    def __init__(self, client: httpx.AsyncClient, key: str, record: ApiKeyRecord) -> None:
        self.client = client
        self.key = key
        self.record = record

    async def submit(
        self, path: str = "/book/42:upload-start", body: Any = INPUT, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """POST an input as JSON."""
        sent = {"Content-Type": JSON, **(headers or {})}
        return await self.client.post(path, content=msgspec.json.encode(body), headers=sent)

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """GET a path; a `_` in the name of a header is a `-`."""
        return await self.client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    async def cancel(self, operation_id: str) -> httpx.Response:
        """POST a cancel request."""
        return await self.client.post(f"/status/{operation_id}:cancel")


class AccessDesk:
    """A service that asks for API keys, and what its operator does."""

    def __init__(self, api: Api, bucket: AccessBucket, ids: OperationIds, stack: AsyncExitStack) -> None:
        self.api = api
        self.ids = ids
        self._bucket = bucket
        self._stack = stack

    async def caller(
        self,
        tenant: str,
        subject: str,
        *scopes: str,
        lifetime: float | None = None,
        is_awaited: bool = True,
        most_priority: str = "",
    ) -> CallerWithKey:
        """A caller with a new key, which the service knows on return; `lifetime` is in seconds."""
        now = datetime.now(UTC)
        expires = None if lifetime is None else now + timedelta(seconds=lifetime)
        key, record = create_key(
            tenant=tenant, subject=subject, scopes=scopes, now=now, expires=expires, most_priority=most_priority
        )
        assert await self._bucket.put_record(record.id, encode_key(record), 0)
        client = httpx.AsyncClient(
            base_url=self.api.url, timeout=15, headers={"Authorization": f"Bearer {key}"}, trust_env=False
        )
        caller = CallerWithKey(await self._stack.enter_async_context(client), key, record)
        if is_awaited:
            await self.is_known(caller)
        return caller

    async def is_known(self, caller: CallerWithKey) -> None:
        """Wait until the service takes a caller's key, a second at most."""

        async def is_taken() -> bool:
            return (await caller.get("/openapi.json")).status_code == 200

        await eventually(is_taken, within=2)

    async def revoke(self, caller: CallerWithKey) -> None:
        """Revoke a caller's key."""
        entry = await self._bucket.record(caller.record.id)
        revoked = msgspec.structs.replace(decode_key(entry.data), revoked=datetime.now(UTC))
        assert await self._bucket.put_record(caller.record.id, encode_key(revoked), entry.revision)


@asynccontextmanager
async def serving_with_keys(broker: Broker, link: Connection, **settings: Any) -> AsyncIterator[AccessDesk]:
    """A service on a free port that asks for the API keys of the broker's bucket; `settings` are those of the API."""
    async with AsyncExitStack() as stack:
        bucket = AccessBucket(link)
        await bucket.start()
        stack.push_async_callback(bucket.stop)
        ids = OperationIds(await bucket.secret())
        api = await stack.enter_async_context(serving(broker.url, **{"auth": ("keys",), **settings}))
        yield AccessDesk(api, bucket, ids, stack)
