"""Whose children are, with API keys: those of their parent's caller."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from opstream_journal import Connection, Journal
from opstream_runner.authoring.action import collect_actions
from opstream_schemas.children.lineage import child_id
from opstream_schemas.events import Requested
from opstream_schemas.names import Kind
from tests.support.access.desk import AccessDesk, CallerWithKey, serving_with_keys
from tests.support.api.service import serving
from tests.support.broker.server import Broker
from tests.support.children import child_actions
from tests.support.projector.service import projecting
from tests.support.runner.stage import RunnerStage

pytestmark = pytest.mark.broker

NAME = "page:print"
LIMIT = 2


@pytest.fixture
async def stage(broker: Broker, link: Connection, journal: Journal) -> AsyncIterator[RunnerStage]:
    """A projector, and a runner of the actions that begin children."""
    stage = RunnerStage(link, journal)
    async with stage.runner(collect_actions([child_actions]), concurrency=16), projecting(broker.url):
        yield stage


@contextlib.asynccontextmanager
async def asking_for_keys(broker: Broker, link: Connection) -> AsyncIterator[AccessDesk]:
    """The API."""
    async with serving_with_keys(broker, link, caller_open_operations=LIMIT) as desk:
        yield desk


async def done(caller: CallerWithKey, operation_id: str, action: str = "bind", **given: Any) -> dict[str, Any]:
    """Submit a parent, and return its status after its end."""
    answer = await caller.submit(f"/page:{action}", given, {"Operation-Id": operation_id})
    assert answer.status_code == 202, answer.text
    while True:
        status: dict[str, Any] = (await caller.get(f"/status/{operation_id}", Prefer="wait=10")).json()
        if status["status"] not in {"NotStarted", "Running"}:
            return status


async def requested(stage: RunnerStage, stored_id: str) -> Requested:
    """The request of an operation."""
    (first, *_) = await stage.datas(stored_id)
    assert isinstance(first, Requested)
    return first


def shown(answer: httpx.Response) -> tuple[int, bytes]:
    """What an answer says."""
    return answer.status_code, answer.content


async def test_a_child_is_its_parent_s_caller_s(broker: Broker, link: Connection, stage: RunnerStage) -> None:
    """A caller that may submit the parent alone has children of it, reads them, and no one else does who may not read
    the parent. The parents of two tenants with one id have two children. Children count for no limit."""
    async with asking_for_keys(broker, link) as desk:
        ann = await desk.caller("acme", "ann", "submit:page:bind", "submit:page:bind-all", "read", "cancel")
        bob, auditor = await desk.caller("acme", "bob", "read", "cancel"), await desk.caller("acme", "eye", "read:all")
        eve, ops = await desk.caller("evil", "ann", "submit", "read:all"), await desk.caller("", "ops", "admin")
        assert (await ann.submit("/page:print", {"number": 1})).status_code == 403
        assert (await done(ann, "one", pages=7))["status"] == "Succeeded"
        assert (await done(eve, "one", pages=8))["result"] == 8

        own, theirs = (child_id(desk.ids.stored_id(tenant, "one"), NAME, "", None) for tenant in ("acme", "evil"))
        assert own != theirs
        for tenant, child in (("acme", own), ("evil", theirs)):
            first = await requested(stage, child)
            assert (first.tenant, first.caller, first.own_id) == (tenant, "ann", child)
            assert first.parent is not None
            assert (first.parent.id, first.parent.own_id) == (desk.ids.stored_id(tenant, "one"), "one")

        for reader in (ann, auditor):
            status = (await reader.get(f"/status/{own}")).json()
            assert (status["id"], status["parent"], status["result"]) == (own, "one", {"number": 7})
            assert (await reader.get(f"/status/{own}/events")).json()["value"][0]["subject"] == own
        for stranger in (bob, eve, ops):
            for ask in ("", "/events"):
                unknown = shown(await stranger.get(f"/status/child-{'x' * 43}{ask}"))
                assert unknown[0] == 404
                assert shown(await stranger.get(f"/status/{own}{ask}")) == unknown
        assert (await bob.cancel(own)).status_code == 404

        status = await done(ann, "many", "bind-all", pages=LIMIT * 5, seconds=0.05)
        assert status["status"] == "Succeeded"


async def test_a_cancel_by_an_admin_goes_down(broker: Broker, link: Connection, stage: RunnerStage) -> None:
    """The children of another caller's operation end with it, and their caller may cancel one itself."""
    async with asking_for_keys(broker, link) as desk:
        ann = await desk.caller("acme", "ann", "submit", "read", "cancel")
        root = await desk.caller("acme", "root", "admin")
        for operation_id, canceler in (("one", ann), ("two", root)):
            body = {"pages": 2, "seconds": 600, "fail": "all"}  # so the end of the first one does not end it
            await ann.submit("/page:bind-all", body, {"Operation-Id": operation_id})
            stored = desk.ids.stored_id("acme", operation_id)
            children = [child_id(stored, "children", "", index) for index in range(2)]
            await stage.reached(stored, lambda operation: operation.wait)
            answers = await asyncio.gather(canceler.cancel(children[0]), canceler.cancel(operation_id))
            assert {answer.status_code for answer in answers} == {200}
            for one in (stored, *children):
                assert (await stage.ended(one)).status == "Canceled"


async def test_children_of_the_time_without_keys(broker: Broker, link: Connection, stage: RunnerStage) -> None:
    """Once keys are asked for, those who read the operator's operations read these children, and no other caller."""
    async with serving(broker.url) as api:
        await api.submit("/page:bind", {"pages": 3}, {"Operation-Id": "early"})
        await stage.ended("early")
    child = child_id("early", NAME, "", None)
    async with asking_for_keys(broker, link) as desk:
        ops, ann = await desk.caller("", "ops", "read:all"), await desk.caller("acme", "ann", "read:all")
        assert (await ops.get(f"/status/{child}")).json()["parent"] == "early"
        assert (await ann.get(f"/status/{child}")).status_code == 404


async def test_a_child_has_the_priority_of_its_parent(broker: Broker, link: Connection, stage: RunnerStage) -> None:
    """If both actions have priorities; otherwise that of its action, or none."""
    async with asking_for_keys(broker, link) as desk:
        ann = await desk.caller("acme", "ann", "submit", "read")
        sent = {"Operation-Id": "one", "Operation-Priority": "high"}
        assert (await ann.submit("/page:bind-soon", {"pages": 1}, sent)).status_code == 202
        stored = desk.ids.stored_id("acme", "one")
        await stage.ended(stored)
        wanted = {"page:print-soon": "high", NAME: ""}
        assert {name: (await requested(stage, child_id(stored, name, "", None))).priority for name in wanted} == wanted
        assert (await stage.state(stored)).kind == Kind("page", "bind-soon")
