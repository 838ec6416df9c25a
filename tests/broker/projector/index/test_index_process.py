"""`opstream projector --index` as a process that is killed (SIGKILL) while it makes the index."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from opstream_index.errors import IndexUnavailable
from opstream_index.operation_row import row_of
from opstream_index.sqlite_store import SqliteReader
from opstream_journal import Connection, Journal, SnapshotStore, SnapshotWrite
from opstream_schemas.operation.state import Operation, Status
from tests.support.broker.server import Broker
from tests.support.index.rows import rows_of
from tests.support.journal.journals import begin
from tests.support.projector.projection import utc_now
from tests.support.system.processes import Process
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

BATCH = 500
BATCHES = 24


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def count(reader: SqliteReader) -> int:
    try:
        return int(reader.fetch("SELECT count(*) FROM operation")[0][0])
    except IndexUnavailable:
        return 0


async def filled(view: SnapshotStore, operation: Operation) -> list[Operation]:
    """Write many ended operations into the view."""
    ended = msgspec.structs.replace(operation, status=Status.SUCCEEDED, finished_at=utc_now())
    made = []
    for number in range(BATCHES):
        later = ended.created_at + timedelta(milliseconds=number)
        batch = [
            msgspec.structs.replace(ended, id=f"op-{number}-{one}", created_at=later + timedelta(microseconds=one))
            for one in range(BATCH)
        ]
        assert await view.put_batch([SnapshotWrite(one, 0) for one in batch]) is not None
        made += batch
    return made


async def test_a_killed_rebuild_goes_on(
    broker: Broker, link: Connection, journal: Journal, view: SnapshotStore, stack: ExitStack, tmp_path: Path
) -> None:
    """A process that is killed while it makes the index is followed by one that goes on where it was."""
    operations = await filled(view, await begin(journal, "first"))
    path = tmp_path / "index.db"
    reader = SqliteReader(str(path))
    stack.callback(reader.close)
    command = ("projector", "--nats", broker.url, "--index", f"sqlite:{path}", "--log-level", "debug")

    killed = stack.enter_context(Process(*command))
    # A batch is marked after it is written, so once there is a second one, the first is marked.
    await eventually(lambda: count(reader) > BATCH, within=20, poll=0.001)
    killed.send(signal.SIGKILL)
    killed.wait(5)
    done = count(reader)
    assert 0 < done < len(operations)
    assert not reader.coverage().is_complete

    following = stack.enter_context(Process(*command))
    await eventually(lambda: reader.coverage().is_complete, within=20)
    assert count(reader) >= len(operations)
    begun = re.search(r"making the index .* from revision (\d+) on", following.output)
    assert begun is not None
    assert done // 2 < int(begun[1]) <= done + BATCH
    assert {one.id: row_of(one) for one in operations}.items() <= rows_of(reader).items()
    assert time.time() * 1e6 - reader.coverage().complete_until < 60e6
