"""Runners of two versions of an action on one queue: nobody's request fails because the wrong one got it."""

from __future__ import annotations

import contextlib
import logging
from datetime import UTC, datetime

import msgspec
import pytest

from opstream_journal import ActionCatalog, Connection, Journal, announce_action, find_action
from opstream_journal.errors import ActionServed, SchemaChanged
from opstream_journal.queues.runner_records import RunnerRecords
from opstream_journal.stores.action_catalog import withdraw_action
from opstream_runner import Action, ActionContext, RetryAfter, action
from opstream_runner.dispatch import version_gate
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import Requested
from opstream_schemas.operation.state import Status
from tests.support.journal.journals import KIND
from tests.support.runner import upcast_actions
from tests.support.runner.stage import ACKS, RunnerStage
from tests.support.runner.upcast_actions import from_before, upcasting_apart
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


@pytest.mark.parametrize(("second", "is_refused"), [(changed, True), (after, False), (before, False)])
async def test_a_changed_schema_is_refused(stage: RunnerStage, second: Action[..., str], is_refused: bool) -> None:
    """A runner whose types changed under one version does not start; what is announced stays."""
    async with stage.runner([before]):
        pass
    announced = await find_action(stage.link, KIND)
    with pytest.raises(SchemaChanged) if is_refused else contextlib.nullcontext() as refused:
        async with stage.runner([second], allows_schema_change=False):
            pass
    if refused is not None:
        assert "version 1 was announced with another schema of its input" in str(refused.value)
        assert "@action(..., version=2)" in str(refused.value)
        assert "--allow-schema-change" in str(refused.value)
        assert await find_action(stage.link, KIND) == announced


@pytest.mark.parametrize("was_confidential", [True, False])
async def test_a_changed_confidentiality_is_refused(stage: RunnerStage, *, was_confidential: bool) -> None:
    """The same version can't be confidential for one runner and not for another: what the last one announced would
    decide what is stored in the clear. Another version can."""
    sealed = msgspec.structs.replace(before.spec.policy, confidential=True)
    specs = [before.spec, msgspec.structs.replace(before.spec, policy=sealed)]
    first, second = specs[::-1] if was_confidential else specs
    await announce_action(stage.link, first)
    for allows in (False, True):
        with pytest.raises(SchemaChanged, match=r"confidential: set @action\(\.\.\., version=2\)"):
            await announce_action(stage.link, second, allows_schema_change=allows)
    assert await find_action(stage.link, KIND) == first
    assert await announce_action(stage.link, msgspec.structs.replace(second, action_version=2))


async def test_an_entry_of_another_release(stage: RunnerStage) -> None:
    """A schema that another release of opstream wrote is not taken for a change of a type."""
    await announce_action(stage.link, msgspec.structs.replace(before.spec, schema_format=0))
    async with stage.runner([changed], allows_schema_change=False):
        pass
    assert await find_action(stage.link, KIND) == changed.spec


async def test_mixed_schemas_of_one_version(stage: RunnerStage) -> None:
    """Two runners have version 1 with different types. What the newer one can't read goes back to the older one."""
    async with stage.runner([before]), stage.runner([changed]):
        for number in range(8):
            await stage.request(f"op-{number}", given=OLD_INPUT, action_version=1)
        ended = [await stage.ended(f"op-{number}", within=60) for number in range(8)]
    assert [one.status for one in ended] == [Status.SUCCEEDED] * 8


@action(str(KIND), version=2, upcast=from_before)
async def upcasting(request: After, ctx: ActionContext) -> str:
    if ctx.attempt == 1:
        raise RetryAfter(0.01)
    return f"{request.first}, {request.last}"


@pytest.mark.parametrize("given", [upcasting, upcasting_apart])
async def test_an_upcast(stage: RunnerStage, given: Action[..., str]) -> None:
    """The handler gets the input as its version has it, in each attempt and in a process of its own; the request that
    is recorded stays as it was sent."""
    given.module = given.module or upcast_actions.__name__
    async with stage.runner([given]):
        await stage.request("op-1", given=b'{"name": "Ann Smith"}', action_version=1)
        operation = await stage.ended("op-1", within=30)
        assert (operation.status, operation.result) == (Status.SUCCEEDED, msgspec.Raw(b'"Ann (v1), Smith"'))
    requested = (await stage.datas("op-1"))[0]
    assert isinstance(requested, Requested)
    assert requested.input == msgspec.Raw(b'{"name": "Ann Smith"}')


async def test_which_versions_are_there(stage: RunnerStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of each runner, and for some minutes those of runners that have gone."""
    monkeypatch.setattr(version_gate, "_KNOWN_SECONDS", 0.0)
    now = 1000.0
    present = version_gate.PresentVersions(stage.link, KIND, lambda: now)

    async def are(*versions: int) -> bool:
        return set(await present.read()) == set(versions)

    assert await are()
    async with stage.runner([after]):
        async with stage.runner([before]):
            await eventually(lambda: are(1, 2))
        records = RunnerRecords(stage.link)
        await records.start()

        async def has_gone() -> bool:
            return (await records.of(KIND)).versions == (2,)

        await eventually(has_gone)
        assert await are(1, 2)
        now += version_gate.OTHER_VERSION_WAIT
        assert await are(2)


async def withdraw(stage: RunnerStage) -> ActionSpec | None:
    return await withdraw_action(stage.link, KIND, at=datetime.now(UTC), by="ann", reason="wrong")


async def test_the_way_back_to_an_earlier_version(stage: RunnerStage) -> None:
    """Version 2 was wrong: once it is withdrawn, runners of version 1 announce theirs, and run what comes. A catalog
    that is read meanwhile, and one that begins, follow. Without that, version 2 stays."""
    catalog = ActionCatalog(stage.link)
    await catalog.start()

    async def shows(version: int) -> bool:
        await catalog.refresh()
        return KIND in catalog.specs and catalog.specs[KIND].action_version == version

    async with stage.runner([after]):
        pass
    async with stage.runner([before]):
        assert await shows(2)
    await eventually(lambda: withdraw(stage))
    assert await withdraw(stage) is None
    await catalog.refresh()
    assert (dict(catalog.specs), await catalog.find(KIND)) == ({}, None)
    async with stage.runner([before]):
        await eventually(lambda: shows(1))
        found = await catalog.find(KIND)
        assert found is not None
        assert found.action_version == 1
        await stage.request("op-1", given=OLD_INPUT, action_version=1)
        assert (await stage.ended("op-1")).status is Status.SUCCEEDED
    await catalog.stop()
    later = ActionCatalog(stage.link)
    await later.start()
    assert later.specs[KIND].action_version == 1
    await later.stop()


async def test_the_same_version_comes_back(stage: RunnerStage) -> None:
    """A runner that starts after a withdrawal announces the action again, though nothing of it has changed."""
    async with stage.runner([before]):
        pass
    assert await eventually(lambda: withdraw(stage)) == before.spec
    catalog = ActionCatalog(stage.link)
    await catalog.start()
    assert dict(catalog.specs) == {}
    async with stage.runner([changed], allows_schema_change=False):
        await catalog.refresh()
        assert dict(catalog.specs) == {KIND: changed.spec}
    await catalog.stop()


async def test_an_action_with_runners_is_not_withdrawn(stage: RunnerStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its runners would not announce it again. One without a record, as of an earlier release, counts by its pull."""
    async with stage.runner([before]) as runner:
        await eventually(lambda: runner.is_ready)

        async def pulls() -> bool:
            return bool((await stage.consumer()).num_waiting)

        await eventually(pulls)
        with pytest.raises(ActionServed, match="stop them first"):
            await withdraw(stage)
        monkeypatch.setattr("opstream_journal.queues.runner_records.LIFETIME", -60.0)
        with pytest.raises(ActionServed, match="has runners: stop them first"):
            await withdraw(stage)
    assert await find_action(stage.link, KIND) == before.spec
