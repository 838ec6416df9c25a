"""Whether a login may do what a role can't do without, on a cluster that has lost its leaders."""

from __future__ import annotations

from typing import Final

import pytest

from opstream_journal import JournalUnavailable
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.connection import Connection
from opstream_journal.jetstream.readiness import retry_until_ready
from opstream_journal.provisioning.login_check import LoginCheck
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas import subjects
from opstream_schemas.broker_access.permissions import API, Role
from tests.support.broker.server import Cluster
from tests.support.journal.journals import linked
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

PATIENCE: Final = 60.0
PULL: Final = f"{API}.CONSUMER.MSG.NEXT.{subjects.OPERATIONS_STREAM}.{subjects.PROJECTOR_CONSUMER}"


async def test_consumers_without_a_leader_are_no_wrong_login(cluster: Cluster) -> None:
    """Without a leader nothing answers a pull, and so it is with a login that may not pull: the one is no sign of the
    other."""
    async with linked(cluster.nodes[0].url) as link:
        await retry_until_ready(link, lambda: provision(link, Sizing(replicas=3)), PATIENCE)
        check = LoginCheck(link, Role.PROJECTOR)
        await retry_until_ready(link, check.check, PATIENCE)
        for node in cluster.nodes[1:]:
            node.kill()
        await eventually(lambda: _has_no_responder(link), within=PATIENCE)
        assert [await check.look() for _ in range(3)] == [None] * 3


async def _has_no_responder(link: Connection) -> bool:
    link.denials.forget(PULL)
    try:
        await rpc.call(link, PULL, b"{", timeout=0.5, is_answer=lambda message: message.status is not None)
    except JournalUnavailable:
        return bool(link.denials.found(PULL))
    return False
