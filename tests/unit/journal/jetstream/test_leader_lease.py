"""For how long a leader leads at least, and which answers count."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import msgspec
import pytest

from opstream_journal.errors import NoLeader
from opstream_journal.jetstream import leader_lease
from opstream_journal.jetstream.leader_lease import LeaderLease, lease_seconds

if TYPE_CHECKING:
    from opstream_journal import Connection

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("silences", "seconds"),
    [
        pytest.param([], 2.5, id="the only copy"),
        pytest.param([0.5, 0.5], 2.0, id="all are heard"),
        pytest.param([0.5, None], 2.0, id="one of three was never heard"),
        pytest.param([600.0, 1.0], 1.5, id="one of three is silent"),
        pytest.param([3.0, 3.0], -0.5, id="all are silent"),
        pytest.param([None, None], 0.0, id="none was ever heard"),
        pytest.param([0.5, 9.0, 1.0, 9.0], 1.5, id="two of five are silent"),
        pytest.param([0.5, 9.0, 9.0, 9.0], -6.5, id="three of five are silent"),
    ],
)
def test_lease(silences: list[float | None], seconds: float) -> None:
    """The copies that a majority needs count, with the one that was heard of first among them."""
    assert lease_seconds(silences) == pytest.approx(seconds)


class Cluster:
    """What a connection to a cluster answers when it is asked who leads, and how long that takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *silences: float, size: int = 3) -> None:
        self.silences = list(silences)
        """Seconds since the leader has heard of its copies, by question; the last one holds from then on."""
        self.asked = 0
        self.slept = 0.0
        self.is_connected = True
        self.nc = SimpleNamespace(_server_info={"cluster": "lab"} if size > 1 else {})
        monkeypatch.setattr(leader_lease.rpc, "call", self._answer)

    async def sleep(self, seconds: float) -> None:
        self.slept += seconds
        await asyncio.sleep(0)

    async def _answer(self, *_: object) -> SimpleNamespace:
        silence = self.silences.pop(0) if len(self.silences) > 1 else self.silences[0]
        self.asked += 1
        replicas = [{"active": int(silence * 1e9)}] * 2
        return SimpleNamespace(data=msgspec.json.encode({"cluster": {"leader": "n1", "replicas": replicas}}))


def now() -> float:
    return asyncio.get_running_loop().time()


def lease_on(cluster: Cluster) -> LeaderLease:
    return LeaderLease(cast("Connection", cluster), "OPERATIONS")


async def test_an_answer_before_the_lease_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who answers may have been suspended: it is looked twice, with a pause, and the question is to be asked again."""
    cluster = Cluster(monkeypatch, 0.1)
    lease = lease_on(cluster)
    asked_at = now()
    assert not await lease.covers(asked_at)
    assert (cluster.asked, cluster.slept > 0.2) == (2, True)
    assert not await lease.covers(asked_at), "that answer is from before the second look"
    assert await lease.covers(now())


async def test_an_old_leader_that_the_second_look_unmasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its copies sent before it was suspended looks new at first, and nothing follows."""
    cluster = Cluster(monkeypatch, 0.0, 5.0)
    with pytest.raises(NoLeader):
        await lease_on(cluster).covers(now())


async def test_a_lease_that_is_held_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is to be renewed, and then all questions share one look."""
    cluster = Cluster(monkeypatch, 0.1)
    lease = lease_on(cluster)
    await lease.covers(now())
    before = cluster.asked
    assert all([await lease.covers(now()) for _ in range(100)])
    assert cluster.asked == before
    lease._keep()
    lease._keep()
    await asyncio.sleep(0.01)
    assert cluster.asked == before + 1
    assert await lease.covers(now())


async def test_a_short_lease_is_not_renewed_without_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader that hears of its copies late is asked again soon, and not again and again."""
    cluster = Cluster(monkeypatch, 2.0)
    lease = lease_on(cluster)
    await lease.covers(now())
    before = cluster.asked
    await asyncio.sleep(0.1)
    assert cluster.asked == before


async def test_a_lease_that_nobody_uses_is_not_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one on a connection that is lost."""
    cluster = Cluster(monkeypatch, 0.1)
    lease = lease_on(cluster)
    await lease.covers(now())
    before = cluster.asked
    cluster.is_connected = False
    lease._keep()
    cluster.is_connected = True
    lease._used_at -= 60
    lease._keep()
    await asyncio.sleep(0.01)
    assert cluster.asked == before


async def test_a_single_server_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nobody else who could lead."""
    cluster = Cluster(monkeypatch, 0.1, size=1)
    assert await lease_on(cluster).covers(now())
    assert cluster.asked == 0
