"""The webhooks service in the test's process, and the attempts that it records."""

from __future__ import annotations

import ipaddress
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from opstream_journal import NEW_OPERATION, Connection, Journal
from opstream_journal.jetstream.scans.stream_scan import scan_stream
from opstream_journal.runtime.service import ServiceLoop
from opstream_journal.stores.webhook_deliveries import DeliveryStore
from opstream_schemas import subjects
from opstream_schemas.operation.state import Operation
from opstream_schemas.traces.tracer import NO_TRACING, Tracer
from opstream_schemas.webhook_delivery import DeliveryAttempt, decode_delivery_attempt
from opstream_webhooks.address_guard import Resolver, resolve_by_system
from opstream_webhooks.config import ConfigSource, ReloadableConfig
from opstream_webhooks.delivery_worker import DeliveryWorker
from opstream_webhooks.fanout import Fanout
from opstream_webhooks.http_sender import HttpSender
from opstream_webhooks.receiver_limits import ReceiverLimits
from opstream_webhooks.redelivery import RedeliveryDesk
from tests.support.journal.journals import KIND, extend, first, folded
from tests.support.projector.projection import RESULT, running
from tests.support.schemas.histories import request, started
from tests.support.webhooks.receiver import SECRET

LOOPBACK: Final = (ipaddress.ip_network("127.0.0.0/8"),)


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def write_hooks(folder: Path, **urls: str) -> Path:
    """Write a file of endpoints (name=URL) with the same secret."""
    path = folder / "hooks.toml"
    path.write_text(
        "".join(f'[[hooks]]\nname = "{name}"\nurl = "{url}"\nsecrets = ["{SECRET}"]\n' for name, url in urls.items())
    )
    return path


def callbacks(*hosts: str) -> ConfigSource:
    """A configuration that allows callbacks to these hosts, over plain HTTP."""
    return ConfigSource(callback_hosts=hosts, callback_secrets=(SECRET,), is_http_allowed=True)


def composed(
    link: Connection,
    config: ReloadableConfig,
    *,
    delays: Sequence[float] = (0.2, 0.2, 0.2),
    allowed: Sequence[Any] = LOOPBACK,
    seconds: float = 1.0,
    resolve: Resolver = resolve_by_system,
    now: Callable[[], datetime] = utc_now,
    tracing: Tracer = NO_TRACING,
) -> list[ServiceLoop]:
    """The loops of a replica on a connection of the test."""
    deliveries = DeliveryStore(link)
    sender = HttpSender(resolve, allowed, seconds=seconds)
    limits = ReceiverLimits(time.monotonic, random.random)
    clocks: dict[str, Any] = {"now": now, "monotonic": time.monotonic}
    worker = DeliveryWorker(
        link, deliveries, config, sender, limits, **clocks, jitter=random.random, delays=delays, tracing=tracing
    )
    return [Fanout(link, deliveries, config, **clocks), worker, RedeliveryDesk(link, deliveries, now=now)]


@asynccontextmanager
async def delivering(link: Connection, source: ConfigSource, **options: Any) -> AsyncIterator[ReloadableConfig]:
    """Run a replica; `options` are those of `composed`."""
    config = ReloadableConfig(source)
    async with running(*composed(link, config, **options)):
        yield config


async def ended(journal: Journal, operation_id: str, *, callback: str = "") -> Operation:
    """Store a complete operation that succeeds."""
    data = msgspec.structs.replace(request(), callback=callback)
    operation = folded(None, await journal.append(KIND, first(operation_id, data=data), NEW_OPERATION, budget=10))
    return await extend(journal, operation, started(), RESULT)


async def records(link: Connection, operation_id: str = "*") -> list[DeliveryAttempt]:
    """The recorded attempts, oldest first."""
    filters = [subjects.delivery_records_filter(operation_id)]
    return [
        decode_delivery_attempt(one.data)
        async for batch in scan_stream(link, subjects.DELIVERIES_STREAM, filters=filters)
        for one in batch
    ]


async def outcomes(link: Connection, operation_id: str = "*") -> list[str]:
    """The outcomes of the recorded attempts, oldest first."""
    return [str(record.outcome) for record in await records(link, operation_id)]


async def are(link: Connection, operation_id: str, wanted: list[str], *, is_sorted: bool = False) -> bool:
    """Return True if these are the outcomes of an operation's attempts so far, in order or sorted."""
    found = await outcomes(link, operation_id)
    return (sorted(found) if is_sorted else found) == wanted
