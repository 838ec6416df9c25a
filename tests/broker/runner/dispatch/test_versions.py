"""Runners of two versions of an action on one queue: nobody's request fails because the wrong one got it."""

from __future__ import annotations

import logging

import msgspec
import pytest

from opstream_journal import Connection, Journal
from opstream_runner import Action, ActionContext, action
from opstream_runner.dispatch import version_gate
from opstream_schemas.errors import ErrorCode
from opstream_schemas.operation.state import Status
from tests.support.journal.journals import KIND
from tests.support.runner.stage import ACKS, RunnerStage
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


class Before(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class After(msgspec.Struct, forbid_unknown_fields=True):
    first: str
    last: str = ""


@action(str(KIND), version=1)
async def before(request: Before, ctx: ActionContext) -> str:
    return request.name


@action(str(KIND), version=2)
async def after(request: After, ctx: ActionContext) -> str:
    return request.first


@action(str(KIND), version=1)
async def changed(request: After, ctx: ActionContext) -> str:
    return request.first


class Draft(msgspec.Struct):
    number: int
    old: str = "o"


class Edition(msgspec.Struct):
    number: int
    new: int = 7


@action(str(KIND), version=1)
async def drafting(request: Draft, ctx: ActionContext) -> str:
    return request.old


@action(str(KIND), version=2)
async def editing(request: Edition, ctx: ActionContext) -> str:
    return f"new {request.new}"


OLD_INPUT = b'{"name": "Ada"}'
NEW_INPUT = b'{"first": "Ada"}'


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


async def test_an_upgrade_while_requests_wait(stage: RunnerStage) -> None:
    """A queued request of the old version is not failed by a new runner: the old one that still runs gets it."""
    spy = await stage.spy(ACKS)
    async with stage.runner([after]):
        await stage.request("op-1", given=OLD_INPUT, action_version=1)
        await eventually(lambda: any(word.startswith(b"-NAK") for word in spy.acks(1)))
        assert await stage.names("op-1") == ["requested"]
        async with stage.runner([before]):
            await stage.request("op-2", given=NEW_INPUT, action_version=2)
            assert (await stage.ended("op-1", within=30)).status is Status.SUCCEEDED
            assert (await stage.ended("op-2", within=30)).status is Status.SUCCEEDED


async def test_a_request_that_both_understand(stage: RunnerStage) -> None:
    """A request of the old version whose input is one of the new version, too, runs at once."""
    async with stage.runner([after]):
        await stage.request("op-1", given=NEW_INPUT, action_version=1)
        assert (await stage.ended("op-1")).status is Status.SUCCEEDED


async def test_what_a_client_sent_is_not_dropped(stage: RunnerStage) -> None:
    """Sixteen requests with a member that the new version does not know wait for the old one, although the new one
    could decode them; those without it run on either."""
    async with stage.runner([editing]):
        for number in range(16):
            await stage.request(f"op-{number}", given=b'{"number": 1, "old": "mine"}', action_version=1)
        await stage.request("op-plain", given=b'{"number": 1}', action_version=1)
        assert (await stage.ended("op-plain", within=30)).status is Status.SUCCEEDED
        async with stage.runner([drafting]):
            ended = [await stage.ended(f"op-{number}", within=60) for number in range(16)]
    assert [(one.status, one.result) for one in ended] == [(Status.SUCCEEDED, msgspec.Raw(b'"mine"'))] * 16


async def test_a_request_that_no_runner_takes(
    stage: RunnerStage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a runner of the old version the operation fails after some minutes, before it began, and the error and
    the log name both versions."""
    monkeypatch.setattr(version_gate, "OTHER_VERSION_WAIT", 0.5)
    async with stage.runner([after]):
        await stage.request("op-1", given=OLD_INPUT, action_version=1)
        operation = await stage.ended("op-1")
        await stage.settled()
    assert operation.error is not None
    assert (operation.status, operation.attempt, operation.error.code) == (Status.FAILED, 0, ErrorCode.INVALID_INPUT)
    assert "was made for version 1" in operation.error.message
    assert "not one of version 2" in operation.error.message
    warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert any(line.startswith("requests for an earlier version") for line in warnings)
    assert any(line.startswith(f"operation op-1 of {KIND} failed before its first attempt") for line in warnings)


@pytest.mark.parametrize(
    ("first", "second", "is_warned"), [(before, changed, True), (before, after, False), (before, before, False)]
)
async def test_a_schema_that_changed(
    stage: RunnerStage,
    first: Action[..., str],
    second: Action[..., str],
    is_warned: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A runner whose schema differs from what was announced under its version warns, and says what to do."""
    for one in (first, second):
        async with stage.runner([one]):
            pass
    found = [one.getMessage() for one in caplog.records if "another schema" in one.getMessage()]
    assert len(found) == int(is_warned)
    if found:
        assert f"{KIND}: version 1 was announced with another schema of its input" in found[0]
        assert "@action(..., version=2)" in found[0]
