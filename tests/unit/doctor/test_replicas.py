"""Copies of streams in a cluster: how many there are, and whether a leader stores what they are given."""

from __future__ import annotations

from typing import Any

import pytest

from opstream.doctor.broker_checks import check_replicas
from opstream.doctor.system_findings import Level

pytestmark = pytest.mark.unit


def stream(name: str, *, leader: str = "n1", peers: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    """What a cluster answers about a stream of three copies."""
    current = ({"name": "n2", "current": True}, {"name": "n3", "current": True})
    cluster = {"name": "c", "leader": leader, "replicas": list(peers or current)}
    return {"config": {"name": name, "num_replicas": 3}, "cluster": cluster}


def test_a_stream_without_a_leader() -> None:
    """It is named, with the step; the others are no reason to be content."""
    without: list[dict[str, Any]] = [stream("OPERATIONS"), stream("TIMERS", leader=""), stream("DELIVERIES")]
    del without[2]["cluster"]
    (found,) = check_replicas(without, is_clustered=True)
    assert (found.name, found.level) == ("StreamWithoutLeader", Level.CRITICAL)
    assert found.message == "TIMERS, DELIVERIES: no leader, so nothing can be stored there"
    assert "more than half of them must run" in found.next_step


def test_a_single_server_has_no_leaders() -> None:
    """Its streams name none, which is no finding."""
    (found,) = check_replicas([{"config": {"name": "OPERATIONS"}, "state": {}}], is_clustered=False)
    assert (found.name, found.level) == ("SingleServer", Level.NOTE)


@pytest.mark.parametrize(
    ("peer", "how"), [({"offline": True, "current": False}, "offline"), ({"current": False}, "behind")]
)
def test_a_copy_that_is_not_current(peer: dict[str, Any], how: str) -> None:
    """A copy that is missing and one that has to catch up are told apart."""
    late = stream("OPERATIONS", peers=({"name": "n2", "current": True}, {"name": "n3", **peer}))
    (found,) = check_replicas([late], is_clustered=True)
    assert (found.name, f"OPERATIONS on n3 ({how})" in found.message) == ("ReplicaBehind", True)
