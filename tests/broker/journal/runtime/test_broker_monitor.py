"""What a process notices of its broker: no leader, a disk that is full, another time; and the end of each."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opstream_journal import Connection, Journal, JournalUnavailable
from opstream_journal.jetstream import rpc
from opstream_journal.missing_leader import NEXT_STEP, explain_unavailable
from opstream_journal.missing_streams import LOST_JOURNAL_STEP
from opstream_journal.provisioning.archive import ArchiveSizing
from opstream_journal.provisioning.provision import check_provisioned, provision
from opstream_journal.provisioning.topology import Sizing
from opstream_journal.runtime.broker_monitor import (
    AWAY,
    CLOCK_SKEW,
    NO_LEADER,
    NOT_STORED,
    STREAM_MISSING,
    BrokerMonitor,
    _Answer,
    _State,
)
from opstream_journal.runtime.conditions import Conditions
from opstream_schemas import subjects
from tests.support.broker.server import Broker, Cluster
from tests.support.broker.small_disk import MEBIBYTE, no_small_disk, small_disk
from tests.support.journal.journals import KIND, begin, linked, opened
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


def names(conditions: Conditions) -> list[str]:
    """The names of what is wrong now."""
    return [condition.name for condition in conditions.current]


async def reaches(monitor: BrokerMonitor, conditions: Conditions, wanted: list[str], within: float = 40.0) -> None:
    """Look until exactly the wanted conditions hold."""

    async def probe() -> bool:
        await monitor.look()
        return names(conditions) == wanted

    await eventually(probe, within=within, poll=0.1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3600, "the clock of this machine is 3600 s ahead of"), (-60, "the clock of this machine is 60 s behind")],
)
async def test_a_wrong_clock(link: Connection, seconds: int, text: str) -> None:
    """A clock that differs from the broker's is a condition that blocks nothing, until it is set right."""
    conditions, offset = Conditions(), timedelta(seconds=seconds)
    monitor = BrokerMonitor(link, conditions, now=lambda: datetime.now(UTC) + offset)
    await monitor.look()
    (condition,) = conditions.current
    assert (condition.name, condition.is_blocking) == (CLOCK_SKEW, False)
    assert condition.message.startswith(text)
    offset = timedelta(0)
    await monitor.look()
    assert conditions.current == []


@pytest.mark.parametrize("seconds", [4, -4, 0])
async def test_clocks_that_are_near(link: Connection, seconds: int) -> None:
    """A few seconds are no condition."""
    conditions = Conditions()
    await BrokerMonitor(link, conditions, now=lambda: datetime.now(UTC) + timedelta(seconds=seconds)).look()
    assert conditions.current == []


@pytest.mark.parametrize(
    "stream",
    [
        "OPERATIONS",
        "TIMERS",
        "KV_operations",
        "KV_actions",
        "KV_holds",
        "KV_access",
        "ARCHIVE",
        "WEBHOOKS",
        "DELIVERIES",
    ],
)
async def test_a_missing_stream(link: Connection, stream: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is one warning, which names the stream and the next step, and it is over once the stream is there. Without the
    journal a process can do nothing, and a backup comes before `opstream provision`."""
    conditions = Conditions()
    monitor = BrokerMonitor(link, conditions)

    async def make() -> None:
        await provision(link, Sizing(), archive=ArchiveSizing() if stream == "ARCHIVE" else None)

    await make()
    await monitor.look()
    assert conditions.current == []
    await link.nc.jetstream().delete_stream(stream)
    await monitor.look()
    await monitor.look()
    (condition,) = conditions.current
    assert (condition.name, condition.is_blocking) == (STREAM_MISSING, stream == subjects.OPERATIONS_STREAM)
    (line,) = [one.getMessage() for one in caplog.records if STREAM_MISSING in one.getMessage()]
    assert f"the broker has no stream {stream}: " in line
    step = LOST_JOURNAL_STEP if stream == subjects.OPERATIONS_STREAM else "run 'opstream provision', which makes"
    assert f"next step: {step}" in line
    await make()
    await monitor.look()
    assert conditions.current == []


async def test_streams_that_a_system_need_not_have(link: Connection) -> None:
    """Nothing is missing in a system that has no archive."""
    conditions = Conditions()
    assert "ARCHIVE" not in await stream_names(link)
    await BrokerMonitor(link, conditions).look()
    assert conditions.current == []


async def stream_names(link: Connection) -> set[str]:
    """The names of all streams."""
    return {one.config.name or "" for one in await link.nc.jetstream().streams_info()}


async def test_a_slow_answer_is_no_skew(link: Connection) -> None:
    """An answer that took long says little about clocks: only what the time in between can't explain counts."""
    conditions = Conditions()
    times = iter([datetime.now(UTC) - timedelta(seconds=30), datetime.now(UTC) + timedelta(seconds=30)])
    await BrokerMonitor(link, conditions, now=lambda: next(times)).look()
    assert conditions.current == []


@pytest.mark.parametrize("is_seen", [True, False], ids=["missing", "made again"])
async def test_another_journal(broker: Broker, link: Connection, journal: Journal, *, is_seen: bool) -> None:
    """A journal that was gone, or is another one, is reported once, so that others can look for what is lost."""
    conditions, doubts = Conditions(), list[int]()
    conditions.on_doubt(lambda: doubts.append(1))
    monitor = BrokerMonitor(link, conditions)
    await begin(journal, "op-1")
    await monitor.look()
    await monitor.look()
    assert doubts == []
    await link.nc.jetstream().delete_stream(subjects.OPERATIONS_STREAM)
    if is_seen:
        await monitor.look()
    await provision(link, Sizing())
    await monitor.look()
    await monitor.look()
    assert (doubts, conditions.current) == ([1], [])


@pytest.mark.parametrize(("cluster", "doubted"), [("three", []), ("", [1])])
async def test_a_journal_with_less(link: Connection, cluster: str, doubted: list[int]) -> None:
    """A single server has lost something. One of a cluster may be cut off from the others, and shows what it had."""
    conditions, doubts = Conditions(), list[int]()
    conditions.on_doubt(lambda: doubts.append(1))
    monitor = BrokerMonitor(link, conditions)
    link.nc._server_info["cluster"] = cluster
    for last in (9, 7):
        monitor._compare_journals(_Answer(created="now", state=_State(last_seq=last)))
    assert doubts == doubted


async def test_a_lost_connection(broker: Broker, link: Connection) -> None:
    """It is a blocking condition at once, with a next step, and over with the reconnect."""
    conditions = Conditions()
    async with BrokerMonitor(link, conditions).running():
        broker.kill()
        await eventually(lambda: not link.is_connected)
        (condition,) = conditions.current
        assert (condition.name, condition.is_blocking) == (AWAY, True)
        assert condition.next_step.startswith("start the broker")
        broker.start()
        await eventually(lambda: not conditions.current, within=20)
        link.expect_close()
        await link.close()
        assert conditions.current == []


async def test_a_frozen_server(broker: Broker, link: Connection) -> None:
    """A single server that says nothing is no cluster without a leader: it is looked at again at once, and the next
    step is about it."""
    conditions = Conditions()
    async with BrokerMonitor(link, conditions, interval=0.5).running():
        broker.pause()
        try:
            await eventually(lambda: conditions.is_blocked, within=15)
            (condition,) = conditions.current
        finally:
            broker.resume()
        assert (condition.name, "is it stopped or overloaded?" in condition.next_step) == (AWAY, True)
        assert "0 of" not in condition.message
        await eventually(lambda: not conditions.current, within=20)


async def test_no_quorum(cluster: Cluster, cluster_link: Connection) -> None:
    """With one server of three, a process is not ready, and says what to start; with two it is ready again."""
    conditions = Conditions()
    monitor = BrokerMonitor(cluster_link, conditions)
    await reaches(monitor, conditions, [])
    stopped = cluster.nodes[1:]
    for node in stopped:
        node.kill()
    await reaches(monitor, conditions, [NO_LEADER])
    assert conditions.is_blocked
    assert "more than half of them must run" in conditions.current[0].next_step
    with pytest.raises(JournalUnavailable) as refused:
        await check_provisioned(cluster_link)
    shown = await explain_unavailable(cluster_link.nc, refused.value)
    for text in (conditions.current[0].message, shown):
        assert "the journal has no leader" in text
        assert "1 of the 3 servers that this process knows answers" in text
        assert all(f"127.0.0.1:{node.port}" in text for node in stopped)
    assert shown.endswith(f"next step: {NEXT_STEP}")
    for node in stopped:
        node.start()
    await reaches(monitor, conditions, [])


async def test_a_full_disk(tmp_path: Path) -> None:
    """A disk that is full, and one that was full, is a blocking condition until the broker is restarted."""
    if reason := no_small_disk():
        pytest.skip(reason)
    with small_disk(tmp_path / "disk", 32 * MEBIBYTE) as disk:
        broker = Broker(store=disk.folder)
        try:
            broker.start()
            async with linked(broker.url) as link:
                await provision(link, Sizing())
                journal = await opened(link)
                conditions = Conditions()
                monitor = BrokerMonitor(link, conditions)
                await begin(journal, "op-1")
                disk.fill()
                await _publish_in_vain(link)
                await reaches(monitor, conditions, [NOT_STORED])
                assert conditions.is_blocked
                assert "stores nothing in OPERATIONS" in conditions.current[0].message
                disk.free()
                await _publish_in_vain(link)
                await reaches(monitor, conditions, [NOT_STORED])
                broker.stop()
                broker.start()
                await reaches(monitor, conditions, [])
                await _stores(journal)
        finally:
            broker.close()


async def _publish_in_vain(link: Connection) -> None:
    """Publish until the broker has not answered for a while."""

    async def probe() -> bool:
        subject = subjects.event_subject(f"big-{id(link)}", KIND, "requested")
        try:
            await rpc.publish(link, subject, b"x" * 100_000, {})
        except JournalUnavailable:
            return "OPERATIONS" in link.unanswered.streams
        return False

    await eventually(probe, within=30)


async def _stores(journal: Journal) -> None:
    async with asyncio.timeout(10):
        await begin(journal, "op-2")


async def test_one_lost_answer(broker: Broker, link: Connection, journal: Journal) -> None:
    """A publish that had no answer, as in an election, makes no condition if the broker stores."""
    conditions = Conditions()
    monitor = BrokerMonitor(link, conditions)
    link.unanswered.add(subjects.event_subject("op-1", KIND, "requested"))
    assert link.unanswered.streams == ["OPERATIONS"]

    async def is_cleared() -> bool:
        await monitor.look()
        assert conditions.current == []
        return not link.unanswered

    # As often as in a process: the copy needs a moment, in which a second look would see nothing yet.
    await eventually(is_cleared, within=30, poll=2.0)
    assert (await begin(journal, "op-1")).position == 1
