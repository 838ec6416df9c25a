"""Builds what a service needs to know who sends a request: from its settings, the broker and a file."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from opstream_journal import Connection, retry_until_ready
from opstream_journal.runtime.conditions import Conditions
from opstream_journal.stores.access_bucket import AccessBucket, AccessWatch
from opstream_schemas.operation.rate_limit import parse_rate

from .access.access_control import AccessControl
from .access.access_end import AccessEnds
from .access.authentication import CHALLENGE, Authenticator
from .access.denials.access_recorder import AccessRecorder
from .access.keys.key_file import KeyFileWatch
from .access.keys.key_registry import KeyRegistry
from .access.limits.request_exchange import RequestExchange
from .access.limits.request_limit import RequestLimit
from .access.operation_access import OperationAccess, OperationIds
from .access.principal import Principal
from .access.resource_metadata import ResourceMetadata, challenge
from .access.scopes import GENERAL_SCOPES
from .access.signal_access import SignalAccess
from .access.status_access import StatusAccess
from .access.token_keys import TokenKeys
from .access.tokens.signal_token import SignalTokens
from .access.tokens.status_token import StatusTokens
from .access.uploads.upload_access import UploadAccess
from .access.uploads.upload_token import UploadTokens
from .operations.status import StatusReader
from .settings import KEYS, Settings


@asynccontextmanager
async def open_access(
    settings: Settings,
    connection: Connection,
    status: StatusReader,
    conditions: Conditions,
    recorder: AccessRecorder,
) -> AsyncIterator[AccessControl | None]:
    """Yield what the routes need to know of access, kept up to date; None for a service that asks for no credentials.

    Raises:
        JournalError: the broker did not answer, or has no bucket `access`.
        InvalidKeyFile: the file of API keys can't be read.
        KeySetRefused: the issuer of bearer tokens has no keys that can be used.
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
        key_principal: Callable[[str], Principal | None] = _no_principal
        if KEYS in settings.auth:
            registry = KeyRegistry(ends, time.time)
            ends.check_with(registry.is_current)
            key_principal = registry.principal
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
            ids=OperationIds(secret),
            cached=status.cached,
            read=status.read,
            refold=status.refold,
            on_foreign=recorder.note_foreign,
        )
        requests = None
        if settings.caller_requests:
            requests = RequestLimit(parse_rate(settings.caller_requests), time.monotonic)
            exchange = RequestExchange(connection, requests)
            stack.push_async_callback(exchange.stop)
            await exchange.start()
        metadata = None
        if settings.jwt is not None:
            # Only here: it loads cryptography.
            from .access.tokens.token_authenticator import TokenAuthenticator

            asked_for = [f"{settings.jwt.scope_prefix}{scope}" for scope in GENERAL_SCOPES]
            metadata = ResourceMetadata([settings.jwt.issuer], asked_for, settings.public_url.rstrip("/"))
            tokens = TokenAuthenticator(settings.jwt, conditions, metadata_url=metadata.url)
            stack.push_async_callback(tokens.stop)
            await tokens.start()
            authenticators.append(tokens)
        keys = TokenKeys(key_principal, takes_tokens=metadata is not None)
        yield AccessControl(
            authenticators=tuple(authenticators),
            operations=operations,
            ends=ends,
            challenge=CHALLENGE if metadata is None else challenge(metadata.url),
            open_paths=() if metadata is None else tuple(path.encode() for path in metadata.paths),
            status=StatusAccess(
                StatusTokens(secret),
                time.time,
                keys,
                SignalAccess(SignalTokens(secret), time.time, keys),
                UploadAccess(UploadTokens(secret), time.time, keys),
            ),
            uploads=UploadTokens(secret),
            requests=requests,
            key_principal=key_principal,
            metadata=metadata,
        )


def _no_principal(_key_id: str) -> None:
    return None
