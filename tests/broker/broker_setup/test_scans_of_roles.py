"""A login that may not make consumers reads a stream as one that may: the same messages, in the same order."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from opstream_journal import Connection, NotProvisioned
from opstream_journal.errors import StreamReplaced
from opstream_journal.jetstream.scans import stream_scan
from opstream_journal.jetstream.scans.stream_scan import scan_stream
from opstream_journal.provisioning.provision import ensure_runner_consumer, provision
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.broker_access.permissions import ActionAccess
from opstream_schemas.names import Kind
from tests.support.broker.roles import RoleBroker

pytestmark = pytest.mark.broker

KIND = Kind("book", "upload")
FILTERS = ("operations.*.book.upload.requested", "operations.*.book.upload.succeeded")


async def scan(connection: Connection, **options: Any) -> list[tuple[int, str, bytes, int]]:
    return [
        (one.sequence, one.subject, one.data, one.nanoseconds // 1000)
        async for batch in scan_stream(connection, subjects.OPERATIONS_STREAM, **options)
        for one in batch
    ]


async def test_both_read_the_same(tmp_path: Path) -> None:
    """From the start, from a sequence, from a time, to an end, with one filter and with two; and while more comes."""
    with RoleBroker(tmp_path, [ActionAccess(KIND)]) as broker:
        operator = await broker.connect("admin")
        await provision(operator, Sizing())
        for number in range(1, 701):
            await _store(operator, number, ("requested", "started", "succeeded")[number % 3])
        auditor = await broker.connect("auditor")
        whole = await scan(operator)
        assert len(whole) == 700
        middle = datetime.fromtimestamp(whole[350][3] / 1e6).astimezone()
        cases: Sequence[dict[str, Any]] = (
            {},
            {"first": 600},
            {"first": 100, "last": 620},
            {"filters": FILTERS[:1]},
            {"filters": FILTERS, "first": 10},
            {"since": middle},
            {"filters": ("operations.nothing.>",)},
        )
        for options in cases:
            assert await scan(auditor, **options) == await scan(operator, **options), options
        following = scan_stream(auditor, subjects.OPERATIONS_STREAM, first=701, is_following=True)
        later = asyncio.ensure_future(anext(following))
        await asyncio.sleep(0)
        await _store(operator, 701, "requested")
        assert [one.sequence for one in await asyncio.wait_for(later, 10)] == [701]
        await following.aclose()
        for connection in (auditor, operator):
            await connection.close()


async def test_a_stream_that_was_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker comes back with less while nothing is asked for: the scan ends, and does not wait for ever."""
    monkeypatch.setattr(stream_scan, "_LEADER_LAG", 0.1)
    with RoleBroker(tmp_path, [ActionAccess(KIND)]) as roles:
        broker = roles.broker
        operator = await roles.connect("admin")
        await provision(operator, Sizing())
        await _store(operator, 1, "requested")
        await operator.close()
        broker.stop()
        shutil.copytree(broker._folder, tmp_path / "older")
        broker.start()
        operator, auditor = await roles.connect("admin"), await roles.connect("auditor")
        await _store(operator, 2, "requested")
        following = scan_stream(auditor, subjects.OPERATIONS_STREAM, is_following=True)
        while (await anext(following))[-1].sequence < 2:
            pass
        is_back = asyncio.Event()
        auditor.on_reconnect(is_back.set)
        broker.stop()
        shutil.rmtree(broker._folder)
        shutil.copytree(tmp_path / "older", broker._folder)
        broker.start()
        await asyncio.wait_for(is_back.wait(), 20)
        with pytest.raises(StreamReplaced, match="ends at sequence 1, but 2 was read"):
            await asyncio.wait_for(anext(following), 20)
        for connection in (auditor, operator):
            await connection.close()


async def test_a_runner_does_not_make_its_consumer(tmp_path: Path) -> None:
    """Its error names the command that makes it, and does not say that JetStream is off."""
    spec = ActionSpec(resource="book", action="upload", summary="", action_version=1, input_schema={}, result_schema={})
    with RoleBroker(tmp_path, [ActionAccess(KIND)]) as broker:
        operator = await broker.connect("admin")
        await provision(operator, Sizing())
        runner = await broker.connect("runner")
        with pytest.raises(NotProvisioned, match="this login may not make it: run 'opstream provision'"):
            await ensure_runner_consumer(runner, spec)
        await provision(operator, Sizing(), [spec])
        await ensure_runner_consumer(runner, spec)
        for connection in (runner, operator):
            await connection.close()


async def _store(operator: Connection, number: int, event: str) -> None:
    subject = subjects.event_subject(f"op{number}", KIND, event)
    await operator.nc.request(subject, b"x" * number, timeout=5)
