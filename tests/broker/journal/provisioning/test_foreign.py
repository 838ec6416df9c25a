"""A broker of another application: opstream makes and changes nothing there, and says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import ConsumerConfig, KeyValueConfig, StreamConfig

from opstream.events import Event, subscribe
from opstream_journal import Connection, Drifted, ForeignStream
from opstream_journal.provisioning.archive import ArchiveSizing
from opstream_journal.provisioning.provision import check_provisioned, provision
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas import subjects
from tests.support.broker.server import Broker
from tests.support.events.subscribers import events_broker
from tests.support.journal.journals import linked
from tests.support.system.processes import run

pytestmark = pytest.mark.broker

FOREIGN_STREAMS = [
    {"name": "OPERATIONS", "subjects": ["orders.>"]},
    {"name": "OPERATIONS", "subjects": ["operations.>"]},
    {"name": "TIMERS", "subjects": ["timers.>"]},
    {"name": "TIMERS", "subjects": ["cron.>"]},
    {"name": "WEBHOOKS", "subjects": ["webhooks.>"]},
    {"name": "DELIVERIES", "subjects": ["deliveries.>"]},
    {"name": "ARCHIVE", "subjects": ["archive.>"]},
    {"name": "ORDERS", "subjects": ["timers.cron"]},
    {"name": "KV_actions", "subjects": ["orders.>"]},
]


@pytest.fixture
async def bare(broker: Broker) -> AsyncIterator[Connection]:
    """A connection to a broker on which nothing was provisioned."""
    async with linked(broker.url) as link:
        yield link


async def contents(link: Connection) -> dict[str, Any]:
    """The configurations of all streams and consumers on the broker."""
    found: dict[str, Any] = {}
    for stream in await link.nc.jetstream().streams_info():
        name = str(stream.config.name)
        found[name] = stream.config.as_dict()
        for consumer in await link.nc.jetstream().consumers_info(name):
            found[f"{name} {consumer.name}"] = consumer.config.as_dict()
    return found


async def assert_refused(link: Connection, name: str) -> None:
    """`provision`, with and without `--update`, changes nothing and says why."""
    before = await contents(link)
    archive = ArchiveSizing() if name == "ARCHIVE" else None
    for is_update in (False, True):
        with pytest.raises(ForeignStream, match=rf"{name}.*: is it the right broker\? Nothing was made or changed"):
            await provision(link, Sizing(), archive=archive, is_update=is_update)
    assert await contents(link) == before


@pytest.mark.parametrize("config", FOREIGN_STREAMS, ids=lambda one: f"{one['name']} {one['subjects'][0]}")
@pytest.mark.parametrize("holds", [True, False], ids=["full", "empty"])
async def test_a_foreign_stream(bare: Connection, config: dict[str, Any], holds: bool) -> None:
    """A stream of our name, or on our subjects, stops `provision` before it makes or changes anything."""
    jetstream = bare.nc.jetstream()
    await jetstream.add_stream(StreamConfig(**config))
    subject = config["subjects"][0].replace(">", "1")
    if holds:
        await jetstream.publish(subject, b"its owner's")
    await assert_refused(bare, config["name"])
    assert (await jetstream.publish(subject, b"and another")).stream == config["name"]


@pytest.mark.parametrize(
    "bucket", [subjects.VIEW_BUCKET, subjects.ACTIONS_BUCKET, subjects.HOLDS_BUCKET, subjects.ACCESS_BUCKET]
)
@pytest.mark.parametrize("ttl", [None, 60.0])
async def test_a_foreign_bucket(bare: Connection, bucket: str, ttl: float | None) -> None:
    """A bucket that a client of NATS made is not opstream's, although its subjects are the same."""
    store = await bare.nc.jetstream().create_key_value(KeyValueConfig(bucket=bucket, ttl=ttl))
    await store.put("a", b"1")
    await assert_refused(bare, bucket)
    assert (await store.get("a")).value == b"1"


async def test_a_foreign_consumer(link: Connection) -> None:
    """A push consumer with one of our names is not opstream's: services and `provision` refuse it."""
    jetstream = link.nc.jetstream()
    await jetstream.delete_consumer("OPERATIONS", "projector")
    await jetstream.add_consumer("OPERATIONS", ConsumerConfig(durable_name="projector", deliver_subject="elsewhere"))
    await assert_refused(link, "projector")
    with pytest.raises(ForeignStream, match="consumer projector is pushed to elsewhere"):
        await check_provisioned(link)


async def test_ours_with_drift_is_ours(link: Connection) -> None:
    """A stream of opstream's that was changed by hand is a difference, which `--update` puts right."""
    found = (await link.nc.jetstream().stream_info("OPERATIONS")).config
    found.subjects = ["operations.*.*.*.requested"]
    found.sources = None
    await link.nc.jetstream().update_stream(found)
    with pytest.raises(Drifted) as refused:
        await check_provisioned(link)
    assert not isinstance(refused.value, ForeignStream)
    assert (await provision(link, Sizing(), is_update=True)).drift == ()
    await check_provisioned(link)


async def test_everything_else_says_so(broker: Broker, bare: Connection, tmp_path: Path) -> None:
    """Services, subscribers and commands end with status 1 and the same question, and leave the stream as it is."""
    await bare.nc.jetstream().add_stream(StreamConfig(name="OPERATIONS", subjects=["orders.>"]))
    await bare.nc.jetstream().publish("orders.1", json.dumps({"order": 1}).encode())
    before = await contents(bare)
    with pytest.raises(ForeignStream, match="stream OPERATIONS takes orders"):
        await check_provisioned(bare)
    commands = (
        ["provision"],
        ["provision", "--update"],
        ["projector"],
        ["webhooks"],
        ["api", "--port", "0"],
        ["verify"],
        ["verify", "--chain"],
        ["rebuild"],
        ["replay"],
        ["export", str(tmp_path / "events.parquet")],
        ["audit", "0197b1c2-0000-7000-8000-000000000000"],
        ["fail", "0197b1c2-0000-7000-8000-000000000000"],
        ["redeliver", "0197b1c2-0000-7000-8000-000000000000"],
        ["deliveries", "0197b1c2-0000-7000-8000-000000000000"],
        ["parked"],
    )
    ends = await asyncio.gather(*(asyncio.to_thread(run, *one, "--nats", broker.url) for one in commands))
    for command, end in zip(commands, ends, strict=True):
        assert (end.returncode, "is it the right broker?" in end.stderr) == (1, True), (command, end)
        assert (end.stdout, end.stderr.count("\n")) == ("", 1) or command[0] != "provision", end
    events = events_broker(broker)

    @subscribe(events, "book:*", durable="mailer")
    async def handle(event: Event) -> None: ...

    with pytest.raises(ForeignStream):
        await events.start()
    await events.stop()
    assert await contents(bare) == before
