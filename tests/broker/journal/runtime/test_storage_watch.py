"""A broker without room: each process says which limit was reached and how to raise it, also one that is idle."""

from __future__ import annotations

import msgspec
import pytest

from opstream_journal import NEW_OPERATION, Connection, Journal, JournalFull
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_journal.runtime.broker_monitor import BrokerMonitor
from opstream_journal.runtime.conditions import Conditions
from opstream_journal.runtime.storage_watch import STORAGE_LIMIT
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND, first, linked, opened, request
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

ACCOUNT = "accounts {{ A: {{ jetstream: {{ max_file: {} }}, users: [{{ user: a, password: a }}] }} }}\nno_auth_user: a"


async def fill(journal: Journal, size: int, prefix: str) -> str:
    """Append events of `size` bytes until one is refused; return the text of the refusal."""
    data = request(input=msgspec.Raw(b'"%s"' % (b"x" * size)))
    for number in range(1_000):
        try:
            await journal.append(KIND, first(f"{prefix}-{number}", data=data), NEW_OPERATION, budget=5)
        except JournalFull as error:
            return str(error)
    raise AssertionError("the journal takes everything")


async def reaches(monitor: BrokerMonitor, conditions: Conditions, wanted: list[str]) -> None:
    """Look until exactly the wanted conditions hold."""

    async def probe() -> bool:
        await monitor.look()
        return [one.name for one in conditions.current] == wanted

    await eventually(probe, within=40)


async def assert_said(
    link: Connection, idle: Connection, words: str, step: str
) -> tuple[tuple[BrokerMonitor, Conditions], ...]:
    """Fill the journal; the process that was refused and an idle one have a blocking condition."""
    journal = await opened(link)
    for size in (120_000, 1_000, 10):  # until nothing at all is taken
        said = await fill(journal, size, f"op-{size}")
        assert words in said
    watches = tuple((BrokerMonitor(one, conditions := Conditions()), conditions) for one in (link, idle))
    for monitor, conditions in watches:
        await monitor.look()
        (condition,) = conditions.current
        assert (condition.name, condition.is_blocking) == (STORAGE_LIMIT, True)
        assert words in condition.message
        assert step in condition.next_step
    assert "this process was refused 3 times" in watches[0][1].current[0].message
    return watches


async def test_the_servers_limit() -> None:
    """max_file_store is named, by idle processes too, until the broker was restarted with more."""
    with Broker(jetstream="max_file_store: 2MB") as broker:
        async with linked(broker.url) as link, linked(broker.url) as idle:
            await provision(link, Sizing())
            before = (await link.nc.jetstream().stream_info("KV_operations")).state.last_seq
            watches = await assert_said(link, idle, "(max_file_store)", "raise max_file_store")
            broker.stop()
            broker.configure("max_file_store: 100MB")
            broker.start()
            for monitor, conditions in watches:
                await reaches(monitor, conditions, [])
            assert (await link.nc.jetstream().stream_info("KV_operations")).state.last_seq == before
            assert (await link.nc.jetstream().stream_info("TIMERS")).state.last_seq == 0


async def test_the_accounts_limit() -> None:
    """max_file of the account is named, until it was raised."""
    with Broker(extra=ACCOUNT.format("2MB")) as broker:
        async with linked(broker.url) as link, linked(broker.url) as idle:
            await provision(link, Sizing())
            watches = await assert_said(link, idle, "(max_file)", "raise max_file of the account")
            broker.stop()
            broker._extra = ACCOUNT.format("100MB")
            broker.configure("")
            broker.start()
            for monitor, conditions in watches:
                await reaches(monitor, conditions, [])


async def test_the_limit_of_the_journal(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """max_bytes of the journal is named, until it was raised."""
    monkeypatch.setattr("opstream_journal.storage_limit._RECENT", 1.0)
    async with linked(broker.url) as link, linked(broker.url) as idle:
        await provision(link, Sizing(max_bytes=1_000_000))
        watches = await assert_said(link, idle, "OPERATIONS has reached its max_bytes", "with a larger --max-bytes")
        await provision(link, Sizing(max_bytes=10_000_000), is_update=True)
        for monitor, conditions in watches:
            await reaches(monitor, conditions, [])


async def test_a_broker_with_room_is_asked_in_vain(link: Connection) -> None:
    """The question stores nothing, and a broker with room makes no condition."""
    conditions = Conditions()
    monitor = BrokerMonitor(link, conditions)
    for _ in range(3):
        await monitor.look()
    assert conditions.current == []
    for stream in await link.nc.jetstream().streams_info():
        assert stream.state.last_seq == 0, stream.config.name
