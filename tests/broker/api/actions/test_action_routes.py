"""Actions over HTTP: what callers see of them, and pause and resume, which only an operator may do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any, Final

import httpx
import pytest

from opstream_api.queues import waiting_reasons
from opstream_journal import Connection, Journal, announce_action
from opstream_journal.jetstream import rpc
from opstream_runner import Action, ActionContext, action
from opstream_schemas.logs.access_log import ActRecord, decode_access_record
from opstream_schemas.names import Kind
from tests.support.access.desk import AccessDesk, serving_with_keys
from tests.support.api.service import JSON, UPLOAD, Api, serving, spec
from tests.support.broker.server import Broker
from tests.support.runner.stage import HandlerGate, Input, RunnerStage
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

PATH: Final = f"/actions/{UPLOAD}"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service looks at what is there for each request."""
    monkeypatch.setattr(waiting_reasons, "_GRACE", 0.0)
    monkeypatch.setattr(waiting_reasons, "_CACHE_SECONDS", 0.0)
    monkeypatch.setattr("opstream_api.actions.desk._FRESH_SECONDS", 0.0)
    monkeypatch.setattr("opstream_api.actions.desk._COST_FACTOR", 0)
    monkeypatch.setattr("opstream_api.queues.runner_presence._SERVED_SECONDS", 0.0)
    monkeypatch.setattr("opstream_api.queues.runner_presence._STALE_SECONDS", 0.0)


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    """Helpers to run actions."""
    return RunnerStage(link, journal)


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    """A service without authentication, on loopback."""
    async with serving(broker.url) as api:
        yield api


def upload(gate: HandlerGate) -> Action[..., Any]:
    """An action that the test holds, as the service's callers submit it."""

    @action(str(UPLOAD))
    async def handler(request: Input, ctx: ActionContext) -> int:
        await gate.wait(ctx)
        return ctx.attempt

    return handler


async def post(client: httpx.AsyncClient, path: str, body: bytes = b"") -> httpx.Response:
    return await client.post(path, content=body, headers={"Content-Type": JSON} if body else {})


async def listed(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    answer = await client.get("/actions")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["value"]
    return found


async def test_pause_and_resume(api: Api, stage: RunnerStage) -> None:
    """The answer, the list, a submit and the status of what waits tell that the action is paused, since when, until
    when, and why. Once it is resumed, the operation runs."""
    gate = HandlerGate()
    gate.open()
    before = datetime.now(UTC)
    async with stage.runner([upload(gate)], concurrency=3):
        paused = await post(api.client, f"{PATH}:pause", b'{"reason": "moving", "seconds": 3600}')
        assert paused.status_code == 200
        told = paused.json()["paused"]
        since, until = (datetime.fromisoformat(told[name]) for name in ("since", "until"))
        assert before <= since <= datetime.now(UTC)
        assert until - since == timedelta(hours=1)
        assert told["reason"] == "moving"
        submitted = await api.submit(body={}, headers={"Operation-Id": "one"})
        expected = {"reason": "Paused", "since": told["since"], "until": told["until"], "message": "moving"}
        assert (submitted.status_code, submitted.json()["blockedBy"]) == (202, expected)
        status = (await api.status("one")).json()
        assert (status["status"], status["waitingFor"], status["blockedBy"]) == ("NotStarted", "Paused", expected)
        (shown,) = await listed(api.client)
        assert (shown["action"], shown["version"], shown["summary"]) == (str(UPLOAD), 1, "")
        assert (shown["paused"], shown["runnerCount"], shown["slots"], shown["freeSlots"]) == (told, 1, 3, 3)
        assert [(one["reason"], one["number"]) for one in shown["waiting"]] == [("Paused", 1)]
        assert len(shown["runners"]) == 1
        resumed = await post(api.client, f"{PATH}:resume")
        assert (resumed.status_code, "paused" in resumed.json()) == (200, False)
        assert (await api.wait("one", 10)).json()["status"] == "Succeeded"
    assert gate.attempts == [("one", 1)]


async def test_what_waits_can_be_canceled(api: Api, stage: RunnerStage) -> None:
    """A paused action keeps nobody from canceling what waits for it."""
    async with stage.runner([upload(HandlerGate())]):
        assert (await post(api.client, f"{PATH}:pause")).status_code == 200
        await api.submit(body={}, headers={"Operation-Id": "one"})
        assert (await api.cancel("one")).json()["status"] == "Canceled"
        await post(api.client, f"{PATH}:resume")
        await eventually(lambda: _is_settled(stage))


async def _is_settled(stage: RunnerStage) -> bool:
    info = await stage.link.nc.jetstream().consumer_info("OPERATIONS", f"runner_{UPLOAD.resource}_{UPLOAD.action}")
    return (info.num_pending, info.num_ack_pending) == (0, 0)


REFUSED: Final = [
    (f"{PATH}:pause", b'{"seconds": 0}', 400, "InvalidInput", "seconds"),
    (f"{PATH}:pause", b'{"seconds": 999999999999}', 400, "InvalidInput", "seconds"),
    (f"{PATH}:pause", b'{"until": "2020-01-01T00:00:00Z"}', 400, "InvalidInput", "until"),
    (f"{PATH}:pause", b'{"until": "9999-01-01T00:00:00Z"}', 400, "InvalidInput", "until"),
    (f"{PATH}:pause", b'{"until": "2030-01-01T00:00:00"}', 400, "InvalidInput", "until"),
    (f"{PATH}:pause", b'{"seconds": 5, "until": "2030-01-01T00:00:00Z"}', 400, "InvalidInput", "until"),
    (f"{PATH}:pause", b'{"hours": 5}', 400, "InvalidInput", ""),
    (f"{PATH}:pause", b'{"reason": "' + b"x" * 501 + b'"}', 400, "InvalidInput", "reason"),
    (f"{PATH}:resume", b'{"seconds": 5}', 400, "InvalidInput", ""),
    (f"{PATH}:pause?for=5", b"", 400, "InvalidParameter", "for"),
    ("/actions/book:burn:pause", b"", 404, "UnknownAction", ""),
    ("/actions/book:burn:resume", b"", 404, "UnknownAction", ""),
    ("/actions/book:upload-start:burn", b"", 404, "UnknownAction", ""),
    ("/actions/book%3Aupload-start:pause", b"", 404, "UnknownAction", ""),
    ("/actions", b"", 405, "MethodNotAllowed", ""),
]


async def test_refused(api: Api, link: Connection) -> None:
    """A bad request says what is wrong, and pauses nothing."""
    await announce_action(link, spec())
    await eventually(lambda: _is_listed(api))
    for path, body, status, code, target in REFUSED:
        answer = await post(api.client, path, body)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error.get("target", "")) == (status, code, target), (path, body)
    (shown,) = await listed(api.client)
    assert "paused" not in shown


async def _is_listed(api: Api) -> bool:
    return bool(await listed(api.client))


async def test_withdraw(api: Api, stage: RunnerStage) -> None:
    """Not while it has runners. Afterwards it can't be submitted, and what waits can be canceled; a runner that starts
    brings it back."""
    async with stage.runner([upload(HandlerGate())]):
        await eventually(lambda: _has_runner(api))
        refused = await post(api.client, f"{PATH}:withdraw")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "ActionServed")
    await api.submit(body={}, headers={"Operation-Id": "one"})
    await eventually(lambda: _has_runner(api, is_wanted=False))

    async def is_done() -> bool:  # the pull of the runner that has gone counts for a moment
        return (await post(api.client, f"{PATH}:withdraw", b'{"reason": "wrong"}')).status_code == 200

    await eventually(is_done, within=10)
    assert await listed(api.client) == []
    assert (await api.submit(body={})).json()["error"]["code"] == "UnknownAction"
    assert (await post(api.client, f"{PATH}:withdraw")).json()["error"]["code"] == "UnknownAction"
    assert (await api.status("one")).json()["status"] == "NotStarted"
    assert (await api.cancel("one")).json()["status"] == "Canceled"
    async with stage.runner([upload(HandlerGate())]):
        assert (await api.submit(body={}, headers={"Operation-Id": "two"})).status_code == 202


async def _has_runner(api: Api, *, is_wanted: bool = True) -> bool:
    found = await listed(api.client)
    return bool(found) and bool(found[0]["runnerCount"]) is is_wanted


async def test_reads_of_paths_that_change_something(api: Api) -> None:
    """Other methods are told which a path takes; another spelling of the list is no path."""
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        answer = await api.client.request(method, f"{PATH}:pause")
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST"), method
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        answer = await api.client.request(method, "/actions")
        assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD"), method
    for path in ("//actions", "/actions/", "/%61ctions"):
        assert (await api.raw(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())).status == 404, path


async def test_an_application_keeps_its_paths(api: Api, link: Connection) -> None:
    """One whose resource is called `actions` keeps all its submits, also of an action `pause`."""
    own = Kind("actions", "pause")
    await announce_action(link, spec(own))
    await eventually(lambda: _is_listed(api))
    answer = await api.submit("/actions/a:b:pause")
    assert (answer.status_code, answer.json()["kind"], answer.json()["resourceId"]) == (202, "actions:pause", "a:b")
    other = await api.submit("/actions/7:burn")
    assert other.json()["error"]["code"] == "UnknownAction"
    document = (await api.client.get("/openapi.json")).json()
    assert "/actions/{kind}:pause" not in document["paths"]


async def test_behind_a_proxy_without_credentials(broker: Broker, link: Connection, stage: RunnerStage) -> None:
    """Any user of the proxy could send it, so nobody may; the command does it."""
    async with (
        stage.runner([upload(HandlerGate())]),
        serving(broker.url, trusted_proxies=(ip_network("127.0.0.0/8"),)) as api,
    ):
        answer = await post(api.client, f"{PATH}:pause")
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (403, "Forbidden")
        assert "'opstream actions'" in error["message"]
        (shown,) = await listed(api.client)
        assert "paused" not in shown


@pytest.fixture
async def desk(broker: Broker, link: Connection, stage: RunnerStage) -> AsyncIterator[AccessDesk]:
    """A service that asks for keys, with a runner of the action and another action."""
    await announce_action(link, spec(Kind("shop", "order")))
    async with stage.runner([upload(HandlerGate())]), serving_with_keys(broker, link) as desk:
        yield desk


async def test_only_the_operator_may(desk: AccessDesk) -> None:
    """Not who submits, not who reads all, and not the admin of a tenant, whose neighbours it would hit."""
    refused = [
        await desk.caller("", "ci", "submit", "read:all", "cancel", "run"),
        await desk.caller("acme", "boss", "admin"),
    ]
    for caller in refused:
        for act in ("pause", "resume", "withdraw"):
            answer = await post(caller.client, f"{PATH}:{act}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "Forbidden"), caller.record.subject
    stranger = await post(desk.api.client, f"{PATH}:pause")
    assert stranger.status_code == 401
    operator = await desk.caller("", "root", "admin")
    assert all("paused" not in one for one in await listed(operator.client))


async def test_who_sees_what(desk: AccessDesk) -> None:
    """A caller sees the actions that it may submit, without what waits of others, how busy runners are, hosts
    and the operator's name; an operator sees all."""
    operator = await desk.caller("", "root", "admin")
    shop = await desk.caller("acme", "shop", "submit:book:*", "read")
    paused = await post(operator.client, f"{PATH}:pause", b'{"reason": "moving"}')
    assert paused.json()["paused"]["by"] == "root"
    both = await listed(operator.client)
    assert [one["action"] for one in both] == [str(UPLOAD), "shop:order"]
    (seen,) = await listed(shop.client)
    assert seen["paused"] == {name: text for name, text in both[0]["paused"].items() if name != "by"}
    others_load = {"runners", "waiting", "slots", "freeSlots", "lastRunnerAt"}
    assert not others_load & seen.keys()
    assert {"runners", "waiting", "slots", "freeSlots"} <= both[0].keys()
    submitted = await shop.submit(body={}, headers={"Operation-Id": "one"})
    for answer in (submitted, await shop.get("/status/one")):
        blocked = answer.json()["blockedBy"]
        assert (blocked["reason"], blocked["message"], "by" in blocked) == ("Paused", "moving", False)
    own = await operator.submit(body={}, headers={"Operation-Id": "two"})
    for answer in (own, await operator.get("/status/two")):
        assert answer.json()["blockedBy"]["by"] == "root"


async def test_it_is_recorded(desk: AccessDesk, link: Connection) -> None:
    """Each act is in the access log: who, with which key, which action, and why."""
    operator = await desk.caller("", "root", "admin")
    await post(operator.client, f"{PATH}:pause", b'{"reason": "moving"}')
    await post(operator.client, f"{PATH}:resume", b'{"reason": "moved"}')

    async def both() -> list[ActRecord]:
        found = [one for act in ("paused", "resumed") if (one := await _last(link, act)) is not None]
        return found if len(found) == 2 else []

    found = await eventually(both)
    assert [(one.act, one.by, one.key_id, one.target, one.detail) for one in found] == [
        ("paused", "root", operator.record.id, str(UPLOAD), "moving"),
        ("resumed", "root", operator.record.id, str(UPLOAD), "moved"),
    ]


async def _last(link: Connection, act: str) -> ActRecord | None:
    stored = await rpc.get_last(link, "ACCESS_LOG", f"access_log.act.{act}")
    if stored is None:
        return None
    record = decode_access_record(stored.data)
    assert isinstance(record, ActRecord)
    return record
