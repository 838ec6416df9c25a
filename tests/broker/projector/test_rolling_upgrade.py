"""Processes of the previous version, which know only one retention, beside processes of this version."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from opstream_journal import NEW_OPERATION, Connection, Journal, SnapshotStore
from opstream_schemas.action_spec import DAY_SECONDS
from opstream_schemas.events import EventData, Failed
from opstream_schemas.operation.state import FOLD_VERSION, Operation
from tests.support.api.service import serving
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND, first, folded, following
from tests.support.projector.projection import projector, reaches, running, utc_now
from tests.support.schemas.histories import FAILURE, request, started
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

FAILED = Failed(error=FAILURE)


async def recorded_long_ago(journal: Journal, *datas: EventData) -> Operation:
    """An operation of ten days ago with a retention of 90 days for a failure and seven for a success."""
    when = utc_now() - timedelta(days=10)
    data = request(retention=7 * DAY_SECONDS, retention_failed=90 * DAY_SECONDS)
    event = msgspec.structs.replace(first("op-1", data=data), time=when)
    operation = folded(None, await journal.append(KIND, event, NEW_OPERATION, budget=5))
    for data_ in datas:
        expected: Any = operation.stream_sequence
        event = msgspec.structs.replace(following(operation, data_), time=when)
        operation = folded(operation, await journal.append(KIND, event, expected, budget=5))
    return operation


def as_previous_version(operation: Operation) -> Operation:
    """The snapshot as a projector of the previous version writes it."""
    return msgspec.structs.replace(operation, fold_version=FOLD_VERSION - 1, retention_failed=0.0)


async def test_a_status_is_right_with_either_version(broker: Broker, journal: Journal, view: SnapshotStore) -> None:
    """A projector of the previous version omits the retention of a failure; the API folds the journal instead."""
    operation = await recorded_long_ago(journal, started(), FAILED)
    await view.put(as_previous_version(operation), 0)

    async with serving(broker.url) as api:
        answer = await api.status("op-1")

    assert (answer.status_code, answer.json()["status"]) == (200, "Failed")


async def test_a_previous_snapshot_is_replaced(link: Connection, journal: Journal, view: SnapshotStore) -> None:
    """The next event of its operation replaces it, and adds what it lacked."""
    operation = await recorded_long_ago(journal, started())
    await view.put(as_previous_version(operation), 0)
    expected: Any = operation.stream_sequence
    ended = msgspec.structs.replace(following(operation, FAILED), time=utc_now() - timedelta(days=9))
    await journal.append(KIND, ended, expected, budget=5)

    async with running(projector(link, journal)):
        await eventually(lambda: reaches(view, "op-1", 3))

    stored = (await view.get_newest("op-1")).operation
    assert stored is not None
    assert (stored.fold_version, stored.effective_retention) == (FOLD_VERSION, 90 * DAY_SECONDS)
