"""Confidential operations over HTTP, with a runner and a projector: what clients see, what the broker has, and what is
left once one is erased."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from opstream_journal import Connection, Journal
from opstream_journal.keys.keks import KekLocation, KekRing
from opstream_journal.keys.operation_keys import OperationKeys
from opstream_journal.metrics.page import Metrics
from opstream_projector.after_effects import Waker
from opstream_runner.authoring.action import collect_actions
from opstream_runner.dispatch import dispatcher
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import Requested
from opstream_schemas.names import Kind
from opstream_schemas.seals.operation_key import is_sealed
from tests.support.access.desk import serving_with_keys
from tests.support.api.service import Api, serving
from tests.support.broker.server import Broker
from tests.support.keys import confidential_actions
from tests.support.keys.kek_files import write_keks
from tests.support.projector.projection import projector, running, settled
from tests.support.runner.stage import RunnerStage
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

CANARY = "canary-0f7c1b"
CHECK = "/person/7:check"
SENT = "Tue, 24 Nov 2026 08:00:00 GMT"


@pytest.fixture
def keks(tmp_path: Path) -> KekLocation:
    """Where API and runner have their key-encryption key."""
    return KekLocation(file=str(write_keks(tmp_path / "kek")))


@pytest.fixture
async def runner(link: Connection, journal: Journal, keks: KekLocation) -> AsyncIterator[None]:
    """A runner of the actions, and a projector."""
    stage = RunnerStage(link, journal)
    keys = OperationKeys(link, KekRing(keks), is_direct=True)
    actions = collect_actions([confidential_actions])
    async with (
        stage.runner(actions, dependencies=stage.dependencies(keys=keys)),
        running(projector(link, journal, effects=[Waker(link)])),
    ):
        yield


@pytest.fixture
def metrics() -> Metrics:
    """What the service counts."""
    return Metrics()


@pytest.fixture
async def api(broker: Broker, runner: None, keks: KekLocation, metrics: Metrics) -> AsyncIterator[Api]:
    """The service."""
    async with serving(broker.url, keks=keks, metrics=metrics) as api:
        yield api


async def ended(api: Api, path: str = CHECK, **said: Any) -> dict[str, Any]:
    """The status of a new operation, once it has ended."""
    accepted = await api.submit(path, {"secret": CANARY, **said})
    assert accepted.status_code == 202, accepted.text
    monitor: dict[str, Any] = (await api.wait(accepted.json()["id"], 20)).json()
    assert "finishedAt" in monitor, monitor
    return monitor


def code(answer: httpx.Response) -> tuple[int, str]:
    """The status and the error's code."""
    return answer.status_code, answer.json()["error"]["code"]


@pytest.mark.parametrize("path", ["/person/7:check", "/person/7:check-apart"])
async def test_it_works_as_any_other(api: Api, broker: Broker, path: str) -> None:
    """Steps, signals, progress, retries and results are as of other actions, and the broker has none of it in the
    clear; the same request again is the same operation."""
    headers = {"Operation-Id": "op-1"}
    said = {"secret": CANARY, "asks": True}
    assert (await api.submit(path, said, headers)).status_code == 202
    signal = {"Repeatability-Request-ID": "00000000-0000-4000-8000-000000000001", "Repeatability-First-Sent": SENT}
    for _ in range(2):
        sent = await api.client.post("/status/op-1:signal/approval", json={"note": f"ok {CANARY}"}, headers=signal)
        assert sent.status_code == 200, sent.text
    monitor = (await api.wait("op-1", 20)).json()
    assert monitor["result"] == {"said": [f"looked up {CANARY}", f"ok {CANARY}", CANARY]}
    again = await api.submit(path, {"asks": True, "secret": CANARY, "end": "succeed"}, headers)
    assert code(again) == (400, "OperationIdReused")
    again = await api.submit(path, {"asks": True, "secret": CANARY}, headers)
    assert (again.status_code, again.json()["result"]) == (202, monitor["result"])
    failed = await ended(api, path, end="fail")
    assert failed["error"] == {"code": "Refused", "message": f"no entry of {CANARY}", "target": CANARY}
    assert failed["message"] == f"at {CANARY}"
    assert not clear_on_disk(broker)
    await ended(api, "/person/7:list")
    assert clear_on_disk(broker)  # which would find it, were it there


async def test_the_log_says_nothing_of_it(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """What a handler raises is in the log of other actions, and of a confidential one only where it was raised."""
    caplog.set_level(logging.DEBUG)
    for end in ("raise", "misuse", "fail"):
        monitor = await ended(api, end=end)
        assert monitor["status"] == "Failed"
    assert CANARY not in caplog.text
    assert "confidential_actions.py" in caplog.text
    assert "LookupError" in caplog.text
    await ended(api, "/person/7:list", end="raise")
    assert CANARY in caplog.text


async def test_an_erased_operation(
    api: Api, broker: Broker, link: Connection, journal: Journal, metrics: Metrics
) -> None:
    """Status and times stay, with who erased it and why; nothing that it was about comes back, by no way."""
    monitor = await ended(api, end="fail")
    url = f"/status/{monitor['id']}"
    before = await api.client.get(url)
    answer = await api.client.delete(url, params={"reason": "ticket 4711"})
    assert (answer.status_code, answer.content) == (204, b"")
    after = await api.client.get(url, headers={"If-None-Match": before.headers["ETag"]})
    shown = after.json()
    assert (after.status_code, shown["status"], shown["error"]) == (200, "Failed", {"code": "Refused", "message": ""})
    assert (shown["erased"]["reason"], "message" in shown, shown["finishedAt"]) == (
        "ticket 4711",
        False,
        monitor["finishedAt"],
    )
    assert (await api.client.delete(url, params={"reason": "again"})).status_code == 204
    assert (await api.client.get(url)).json()["erased"] == shown["erased"]
    assert b"\nopstream_erasures_total 1" in (await metrics.page(""))[1]  # the second one changed nothing
    assert code(await api.client.post(f"{url}:retry")) == (409, "OperationNotRetriable")
    same = await api.submit(CHECK, {"secret": CANARY, "end": "fail"}, {"Operation-Id": monitor["id"]})
    assert code(same) == (409, "OperationErased")
    history = (await api.client.get(f"{url}/events")).json()["value"]
    assert history[0]["type"] == Requested.sealed_type
    await settled(link)
    assert not clear_on_disk(broker)


async def test_what_can_not_be_erased(api: Api) -> None:
    """One that is not confidential, one that has not ended, and none at all: each with what to do."""
    plain = await ended(api, "/person/7:list")
    refused = await api.client.delete(f"/status/{plain['id']}")
    assert code(refused) == (409, "NotConfidential")
    assert "confidential=True" in refused.json()["error"]["message"]
    waiting = (await api.submit(CHECK, {"secret": CANARY, "end": "sleep"})).json()["id"]
    refused = await api.client.delete(f"/status/{waiting}")
    assert code(refused) == (409, "OperationOpen")
    assert (await api.cancel(waiting, {"reason": f"of {CANARY}"})).status_code == 200
    assert (await api.wait(waiting, 20)).json()["status"] == "Canceled"
    assert (await api.client.delete(f"/status/{waiting}")).status_code == 204
    assert code(await api.client.delete("/status/none")) == (404, "OperationNotFound")
    assert code(await api.client.delete(f"/status/{waiting}?why=x")) == (400, "InvalidParameter")
    put = await api.client.put(f"/status/{waiting}")
    assert (code(put), put.headers["Allow"]) == ((405, "MethodNotAllowed"), "GET, HEAD, DELETE")
    assert code(await api.client.delete(f"/status/{waiting}:cancel")) == (405, "MethodNotAllowed")


async def test_a_retry_has_a_key_of_its_own(api: Api, journal: Journal) -> None:
    """A retry opens the input for the follow-up, which is sealed by another key: to erase one leaves the other."""
    monitor = await ended(api, end="fail")
    again = await api.client.post(f"/status/{monitor['id']}:retry")
    assert again.status_code == 202, again.text
    assert (await api.client.delete(f"/status/{monitor['id']}")).status_code == 204
    follow_up = (await api.wait(again.json()["id"], 20)).json()
    assert follow_up["error"]["message"] == f"no entry of {CANARY}"
    inputs = [(await journal.events(one))[0].data.input for one in (monitor["id"], follow_up["id"])]  # type: ignore[union-attr]
    assert inputs[0] != inputs[1]
    assert all(map(is_sealed, inputs))


async def test_a_schedule_would_keep_it_in_the_clear(api: Api) -> None:
    """A confidential action can't be scheduled, and the answer says why."""
    refused = await api.client.put(
        "/schedules/daily", json={"action": "person:check", "input": {}, "cron": "0 8 * * *"}
    )
    assert code(refused) == (400, "InvalidInput")
    assert "in the clear" in refused.json()["error"]["message"]


async def test_services_without_the_key(
    broker: Broker,
    link: Connection,
    journal: Journal,
    keks: KekLocation,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a key-encryption key the API refuses and shows nothing half, and a runner leaves such operations to
    others, until one with the key comes."""
    monkeypatch.setattr(dispatcher, "UNREADABLE_DELAY", 0.5)
    stage = RunnerStage(link, journal)
    actions = collect_actions([confidential_actions])
    async with (
        serving(broker.url) as poor,
        serving(broker.url, keks=keks) as api,
        stage.runner(actions, dependencies=stage.dependencies()) as left,
    ):
        assert code(await poor.submit(CHECK, {"secret": CANARY})) == (503, "KeysUnavailable")
        operation_id = (await api.submit(CHECK, {"secret": CANARY})).json()["id"]
        assert Kind("person", "check") in left.kinds
        await eventually(lambda: "left to other runners" in caplog.text)
    keys = OperationKeys(link, KekRing(keks), is_direct=True)
    async with serving(broker.url, keks=keks) as api, serving(broker.url) as poor:
        async with stage.runner(actions, dependencies=stage.dependencies(keys=keys)):
            assert (await api.wait(operation_id, 30)).json()["result"]["said"][-1] == CANARY
        assert code(await poor.status(operation_id)) == (503, "KeysUnavailable")
        assert (await poor.client.delete(f"/status/{operation_id}")).status_code == 204
        assert "erased" in (await poor.status(operation_id)).json()


async def test_who_may_erase(broker: Broker, link: Connection, runner: None, keks: KekLocation) -> None:
    """The owner with the scope `erase`, and an admin, whose act is in the access log; nobody else, and no tenant's
    stranger learns that there is such an operation."""
    async with serving_with_keys(broker, link, keks=keks) as desk:
        ann = await desk.caller("acme", "ann", "submit", "read")
        eraser = await desk.caller("acme", "ann", "erase", "read")
        bob = await desk.caller("acme", "bob", "erase", "read:all")
        stranger = await desk.caller("other", "eve", "erase", "read")
        admin = await desk.caller("acme", "root", "admin")
        ids = [(await ann.submit(CHECK, {"secret": CANARY})).json()["id"] for _ in range(2)]
        for one in ids:
            assert (await ann.get(f"/status/{one}", Prefer="wait=20")).json()["result"]["said"][-1] == CANARY
        url = f"/status/{ids[0]}"
        for caller, expected in (
            (ann, (403, ErrorCode.FORBIDDEN)),
            (bob, (403, ErrorCode.FORBIDDEN)),
            (stranger, (404, ErrorCode.OPERATION_NOT_FOUND)),
        ):
            assert code(await caller.client.delete(url)) == expected
        assert (await eraser.client.delete(url)).status_code == 204
        assert (await ann.get(url)).json()["erased"]["by"] == "ann"
        assert (await admin.client.delete(f"/status/{ids[1]}")).status_code == 204
        assert (await ann.get(f"/status/{ids[1]}")).json()["erased"]["by"] == "root"


def clear_on_disk(broker: Broker) -> list[str]:
    """The files of the broker that have the canary."""
    needles = (CANARY.encode(), msgspec.json.encode(CANARY.encode()).strip(b'"').rstrip(b"="))
    files = (file for file in broker.store.rglob("*") if file.is_file())
    return [file.name for file in files if any(one in file.read_bytes() for one in needles)]
