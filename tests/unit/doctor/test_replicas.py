"""Copies of streams in a cluster: how many there are, and whether a leader stores what they are given."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from opstream.doctor.broker_checks import check_replicas
from opstream.doctor.server_look import ServerLook
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
    ("peer", "how"),
    [
        ({"offline": True, "current": False}, "offline"),
        ({"current": False}, "behind"),
        ({"current": False, "active": 12_000_000_000}, "silent for 12 s"),
    ],
)
def test_a_copy_that_is_not_current(peer: dict[str, Any], how: str) -> None:
    """A copy that is missing, one that has to catch up and one of a silent server are told apart, by server."""
    late = [
        stream(name, peers=({"name": "n2", "current": True}, {"name": "n3", **peer}))
        for name in ("TIMERS", "OPERATIONS")
    ]
    (found,) = check_replicas(late, is_clustered=True)
    assert (found.name, f"on n3 ({how}): OPERATIONS, TIMERS." in found.message) == ("ReplicaBehind", True)
    assert found.next_step.startswith("start n3")


@pytest.mark.parametrize(
    "cluster",
    [
        {"leader": "n1", "desired": {"name": "c"}, "replicas": []},
        {"leader": "n1", "replicas": [{"name": "n2", "current": True}]},
        {
            "leader": "n1",
            "desired": {"name": "c"},
            "replicas": [{"name": "n2", "current": True}, {"name": "n3", "current": True}],
        },
    ],
    ids=["none yet", "one of two", "not members yet"],
)
def test_copies_that_are_still_made(cluster: dict[str, Any]) -> None:
    """Right after their number was raised, what is listed is current, and not all: a lost server would stop it."""
    (found,) = check_replicas([stream("OPERATIONS"), stream("WEBHOOKS") | {"cluster": cluster}], is_clustered=True)
    assert (found.name, found.level) == ("ReplicasIncomplete", Level.WARNING)
    assert found.message.startswith("WEBHOOKS: not all copies are there yet")
    assert found.next_step.startswith("keep as many servers running")


def test_why_a_copy_is_behind() -> None:
    """The finding has the address of the server, and what was seen there: a certificate that ended, silence, or
    nothing, so that its log is next."""
    peers = ({"name": "n2", "current": True}, {"name": "n3", "offline": True})
    late = [stream("OPERATIONS", peers=peers)]
    seen = ServerLook(url="nats://n3:4222", name="n3")
    for look, step in (
        (msgspec.structs.replace(seen, refusal="its certificate has expired"), "TLS of n3, which may keep it from"),
        (msgspec.structs.replace(seen, name="", silence="refused"), "start n3, or look at its machine (nats://n3:4222"),
        (seen, "n3 answers clients, so look into its log"),
    ):
        (found,) = check_replicas(late, is_clustered=True, looks=[look])
        assert step in found.next_step
        assert ("n3 at nats://n3:4222 (offline)" in found.message) == bool(look.name)


def test_a_server_without_a_name() -> None:
    """After a restart of the others the broker knows only the id of a server that is down."""
    unknown = "Server name unknown at this time (peerID: jZ6RvVRH)"
    late = [stream("OPERATIONS", peers=({"name": "n2", "current": True}, {"name": unknown, "offline": True}))]
    (found,) = check_replicas(late, is_clustered=True, looks=[ServerLook(url="nats://n3:4222", silence="refused")])
    assert "jZ6RvVRH" in found.message
    assert found.next_step.startswith(
        "start the server that is missing, or look at its machine (nats://n3:4222 does not"
    )
