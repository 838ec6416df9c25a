"""Builds what a service needs to know who sends a request: from its settings, the broker and a file."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from opstream_journal import Connection, retry_until_ready
from opstream_journal.stores.access_bucket import AccessBucket, AccessWatch

from .access.access_control import AccessControl
from .access.access_end import AccessEnds
from .access.authentication import Authenticator
from .access.keys.key_file import KeyFileWatch
from .access.keys.key_registry import KeyRegistry
from .access.operation_access import OperationAccess, OperationIds
from .operations.status import StatusReader
from .settings import KEYS, Settings


@asynccontextmanager
async def open_access(
    settings: Settings, connection: Connection, status: StatusReader
) -> AsyncIterator[AccessControl | None]:
    """Yield what the routes need to know of access, kept up to date; None for a service that asks for no credentials.

    Raises:
        JournalError: the broker did not answer, or has no bucket `access`.
        InvalidKeyFile: the file of API keys can't be read.
    """
    if not settings.auth:
        yield None
        return
    async with AsyncExitStack() as stack:
        bucket = AccessBucket(connection)
        await bucket.start()
        stack.push_async_callback(bucket.stop)
        secret = await retry_until_ready(connection, bucket.secret, settings.connect_timeout)
        ends = AccessEnds(time.time)
        authenticators: list[Authenticator] = []
        if KEYS in settings.auth:
            registry = KeyRegistry(ends, time.time)
            ends.check_with(registry.is_current)
            authenticators.append(registry)
            if settings.auth_keys_file is not None:
                file = KeyFileWatch(settings.auth_keys_file, registry.use)
                stack.push_async_callback(file.stop)
                file.start()
            else:
                watch = AccessWatch(connection, bucket, registry.use_encoded)
                stack.push_async_callback(watch.stop)
                await retry_until_ready(connection, watch.start, settings.connect_timeout)
        operations = OperationAccess(
            ids=OperationIds(secret), cached=status.cached, read=status.read, refold=status.refold
        )
        yield AccessControl(authenticators=tuple(authenticators), operations=operations, ends=ends)
