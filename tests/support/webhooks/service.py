"""Running the webhooks service in tests, and what it records. Callers: broker tests of webhooks."""

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
from opstream_journal.jetstream.stream_scan import scan_stream
from opstream_journal.runtime.service import ServiceLoop
from opstream_journal.stores.webhook_deliveries import DeliveryStore
from opstream_schemas import subjects
from opstream_schemas.operation.state import Operation
from opstream_schemas.webhook_delivery import DeliveryAttempt, decode_delivery_attempt
from opstream_webhooks.address_guard import Resolver, resolve_by_system
from opstream_webhooks.config import ConfigSource, ReloadableConfig
from opstream_webhooks.delivery_worker import DeliveryWorker
from opstream_webhooks.fanout import Fanout
from opstream_webhooks.http_sender import HttpSender
from opstream_webhooks.receiver_limits import ReceiverLimits
from tests.support.journal.journals import KIND, extend, first, folded
from tests.support.projector.projection import RESULT, running
from tests.support.schemas.histories import request, started
from tests.support.webhooks.receiver import SECRET

LOOPBACK: Final = (ipaddress.ip_network("127.0.0.0/8"),)


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


def write_hooks(folder: Path, **urls: str) -> Path:
    """A file of endpoints, all with the same secret."""
    path = folder / "hooks.toml"
    path.write_text(
        "".join(f'[[hooks]]\nname = "{name}"\nurl = "{url}"\nsecrets = ["{SECRET}"]\n' for name, url in urls.items())
    )
    return path


def callbacks(*hosts: str) -> ConfigSource:
    """Callbacks to hosts, in plain HTTP."""
    return ConfigSource(callback_hosts=hosts, callback_secrets=(SECRET,), is_http_allowed=True)


def composed(
    link: Connection,
    hooks: ReloadableConfig,
    *,
    delays: Sequence[float] = (0.2, 0.2, 0.2),
    allowed: Sequence[Any] = LOOPBACK,
    seconds: float = 1.0,
    resolve: Resolver = resolve_by_system,
    now: Callable[[], datetime] = utc_now,
) -> list[ServiceLoop]:
    """The parts of a replica on a connection of the test."""
    deliveries = DeliveryStore(link)
    sender = HttpSender(resolve, allowed, seconds=seconds)
    gate = ReceiverLimits(time.monotonic, random.random)
    clocks: dict[str, Any] = {"now": now, "monotonic": time.monotonic}
    courier = DeliveryWorker(link, deliveries, hooks, sender, gate, **clocks, jitter=random.random, delays=delays)
    return [Fanout(link, deliveries, hooks, **clocks), courier]


@asynccontextmanager
async def delivering(link: Connection, source: ConfigSource, **options: Any) -> AsyncIterator[ReloadableConfig]:
    """A replica at work; `options` are those of `composed`."""
    hooks = ReloadableConfig(source)
    async with running(*composed(link, hooks, **options)):
        yield hooks


async def ended(journal: Journal, operation_id: str, *, callback: str = "") -> Operation:
    """Store a whole operation that succeeds."""
    data = msgspec.structs.replace(request(), callback=callback)
    operation = folded(None, await journal.append(KIND, first(operation_id, data=data), NEW_OPERATION, budget=10))
    return await extend(journal, operation, started(), RESULT)


async def records(link: Connection, operation_id: str = "*") -> list[DeliveryAttempt]:
    """What is recorded, oldest first."""
    filters = [subjects.delivery_records_filter(operation_id)]
    return [
        decode_delivery_attempt(one.data)
        async for batch in scan_stream(link, subjects.DELIVERIES_STREAM, filters=filters)
        for one in batch
    ]


async def outcomes(link: Connection, operation_id: str = "*") -> list[str]:
    """What became of each attempt, oldest first."""
    return [str(record.outcome) for record in await records(link, operation_id)]


async def are(link: Connection, operation_id: str, wanted: list[str], *, is_sorted: bool = False) -> bool:
    """Whether these are the outcomes of an operation's attempts so far, in their order or sorted."""
    found = await outcomes(link, operation_id)
    return (sorted(found) if is_sorted else found) == wanted
