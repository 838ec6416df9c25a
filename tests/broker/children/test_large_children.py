"""Children whose inputs and results are too large for events: they lie in the payload store."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import msgspec
import pytest

from opstream_journal import Connection, Journal
from opstream_payloads.documents import Documents
from opstream_payloads.drivers import open_store
from opstream_payloads.location import StoreLocation
from opstream_payloads.payloads import Payloads
from opstream_runner.attempt import child_office
from opstream_runner.authoring.action import collect_actions
from opstream_schemas.children.lineage import child_id
from opstream_schemas.events import Requested, Succeeded
from tests.support.api.service import Api, serving
from tests.support.broker.server import Broker
from tests.support.children import child_actions
from tests.support.projector.service import projecting
from tests.support.runner.stage import RunnerStage

pytestmark = pytest.mark.broker

LARGE = 400_000
LIMIT = 900_000


@pytest.fixture
async def stage(link: Connection, journal: Journal) -> AsyncIterator[RunnerStage]:
    """A stage with a runner that has the payload store."""
    store = await open_store(StoreLocation(), link, lambda: datetime.now(UTC))
    stage = RunnerStage(link, journal)
    documents = Documents(Payloads(store, lambda: str(uuid.uuid4())))
    dependencies = stage.dependencies(result_limit=LIMIT, documents=documents)
    async with stage.runner(collect_actions([child_actions]), dependencies=dependencies):
        yield stage
    await store.stop()


@pytest.fixture
async def api(broker: Broker, stage: RunnerStage) -> AsyncIterator[Api]:
    """An API, and a projector."""
    async with serving(broker.url, body_limit=LIMIT) as api, projecting(broker.url):
        yield api


@pytest.mark.parametrize("action", ["copy-all", "copy-apart"])
async def test_both_ways(api: Api, stage: RunnerStage, monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    """The parent has each result, also if they are too large for one answer of the runner; events have claim checks."""
    monkeypatch.setattr(child_office, "_REPLY_BYTES", LARGE)
    assert (await api.submit(f"/page:{action}", {"size": LARGE}, {"Operation-Id": "op-1"})).status_code == 202
    ended = await stage.ended("op-1", within=20)
    assert ended.result == msgspec.Raw(b"[%d,%d,%d]" % ((LARGE * 2,) * 3)), ended.error
    for index in range(3):
        first, *_, last = await stage.datas(child_id("op-1", "children", "", index))
        assert isinstance(first, Requested)
        assert isinstance(last, Succeeded)
        assert None not in (first.input_payload, last.result_payload)


@pytest.mark.parametrize(("size", "why"), [(LIMIT, "PayloadTooLarge"), (1024 * 1024, "max_payload")])
async def test_an_input_that_is_too_large(api: Api, stage: RunnerStage, size: int, why: str) -> None:
    """The API refuses what it would not take from a client, and the runner what the broker does not carry."""
    await api.submit("/page:copy-all", {"size": size}, {"Operation-Id": "op-1"})
    ended = await stage.ended("op-1", within=20)
    assert ended.error is not None
    assert ended.error.code == "ChildRefused"
    assert why in ended.error.message
