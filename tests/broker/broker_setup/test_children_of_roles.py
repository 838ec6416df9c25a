"""Children where each role has its own login: a runner's key begins children of its own open operations only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from opstream_journal import Connection, JournalUnavailable, announce_action
from opstream_journal.jetstream import rpc
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas import subjects
from opstream_schemas.broker_access.permissions import ActionAccess
from opstream_schemas.children.lineage import child_id
from opstream_schemas.children.requests import ChildItem, ChildrenAnswer, ChildrenRequest, decode_children_answer
from opstream_schemas.events import Succeeded
from opstream_schemas.names import Kind
from tests.support.api.service import INPUT, UPLOAD, serving, spec, started
from tests.support.broker.roles import RoleBroker
from tests.support.journal.journals import opened
from tests.support.runner.stage import RunnerStage

pytestmark = pytest.mark.broker

OWN, FOREIGN = Kind("book", "publish"), UPLOAD


class Target:
    """A broker with logins, an API on it, and two operations with a live attempt: `own` and `foreign`."""

    def __init__(self, broker: RoleBroker, stage: RunnerStage) -> None:
        self.broker = broker
        self.stage = stage

    async def ask(
        self, login: str, kind: Kind = OWN, *, parent: str = "own", token: str = "token-1", name: str = "a"
    ) -> ChildrenAnswer:
        """Ask with a login's key for a child, and return the answer.

        Raises:
            JournalUnavailable: nobody hears it.
        """
        item = ChildItem(action=str(FOREIGN), resource_id="7", input=msgspec.Raw(msgspec.json.encode(INPUT)))
        request = ChildrenRequest(parent=parent, token=token, name=name, items=(item,))
        link = await self.broker.connect(login)
        try:
            subject = subjects.children_subject(kind)
            answer = await rpc.call(link, subject, msgspec.json.encode(request), timeout=1)
        finally:
            await link.close()
        return decode_children_answer(answer.data)

    async def count(self) -> int:
        """Count the messages in the journal."""
        info = await self.stage.link.nc.jetstream().stream_info(subjects.OPERATIONS_STREAM)
        return int(info.state.messages)


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Target]:
    async with AsyncExitStack() as stack:
        broker = stack.enter_context(RoleBroker(tmp_path, [ActionAccess(OWN)], durables=["mailer"]))
        operator: Connection = await broker.connect("admin")
        stack.push_async_callback(operator.close)
        await provision(operator, Sizing())
        for one in (OWN, FOREIGN):
            await announce_action(operator, spec(one))
        stage = RunnerStage(operator, await opened(operator))
        await stage.request("own", kind=OWN)
        await stage.request("foreign", kind=FOREIGN)
        for one in ("own", "foreign"):
            await stage.append(one, started())
        await stack.enter_async_context(serving(broker.broker.url, credentials=broker.credentials("api")))
        yield Target(broker, stage)


async def test_a_runner_begins_children_of_its_own(target: Target) -> None:
    """Of any action, since its author decides; asked for again it is the same one."""
    for _ in range(2):
        assert (await target.ask("runner")).error is None
        child = await target.stage.state(child_id("own", "a", "", None))
        assert (child.kind, child.parent and child.parent.id) == (FOREIGN, "own")
        assert await target.count() == 5


async def test_no_key_begins_other_children(target: Target) -> None:
    """A runner's key: none of another action's operation, of another attempt, of an ended or unknown one, and its
    refusals don't tell whether another action's operation exists. No other role's key begins any."""
    before = await target.count()
    with pytest.raises(JournalUnavailable):
        await target.ask("runner", FOREIGN, parent="foreign")
    told = {}
    for parent in ("foreign", "unknown"):
        answer = await target.ask("runner", parent=parent)
        assert answer.is_final
        assert answer.error is not None
        told[parent] = answer.error.message.replace(parent, "")
    assert told["foreign"] == told["unknown"]
    assert (await target.ask("runner", token="token-0")).is_final
    for login in ("projector", "webhooks", "subscriber-mailer", "auditor"):
        with pytest.raises(JournalUnavailable):
            await target.ask(login)
    await target.stage.append("own", Succeeded(result=msgspec.Raw(b"{}")))
    assert (await target.ask("runner")).is_final
    assert await target.count() == before + 1
