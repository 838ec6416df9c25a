"""Why there is no key for each team of runners: what a key can do to operations of actions that it may not run.

Once this fails, docs/broker-access.md and docs/adr/0056 say too little of what the broker holds.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from opstream_journal import NEW_OPERATION, ExpectedVersion, Journal, JournalUnavailable
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas.broker_access.permissions import ActionAccess
from opstream_schemas.names import Kind
from opstream_schemas.operation.state import Status
from tests.support.broker.roles import RoleBroker
from tests.support.journal.journals import KIND, first, folded, following
from tests.support.schemas.histories import started

pytestmark = pytest.mark.broker

FILMS = Kind("film", "cut")


async def test_an_operation_is_all_that_lies_under_its_id(tmp_path: Path) -> None:
    """A key for one action can't write under the subjects of another one, but an event under its own subjects with the
    id of an operation of that action counts for the operation."""
    with RoleBroker(tmp_path, [ActionAccess(FILMS)]) as broker:
        operator, films = await broker.connect("admin"), await broker.connect("runner")
        await provision(operator, Sizing())
        journals = [Journal(one, max_msg_size=-1, clock=time.monotonic) for one in (operator, films)]
        for journal in journals:
            await journal.start()
        theirs, stolen = journals
        requested = await theirs.append(KIND, first("op-1"), NEW_OPERATION, budget=5)
        forged = following(folded(None, *await stolen.events("op-1")), started())
        version = ExpectedVersion(requested.sequence)
        with pytest.raises(JournalUnavailable, match="no responder"):
            await stolen.append(KIND, forged, version, budget=0.5)
        assert folded(None, *await theirs.events("op-1")).status is Status.NOT_STARTED
        await stolen.append(FILMS, forged, version, budget=5)
        assert folded(None, *await theirs.events("op-1")).status is Status.RUNNING
        for connection in (operator, films):
            await connection.close()
