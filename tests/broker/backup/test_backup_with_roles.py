"""`opstream backup` and `restore` between brokers with a login for each role: who may, and what works afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from opstream.backup.stream_plan import required_streams
from opstream.cli.app import main
from opstream_api.access.operation_access import OperationIds
from opstream_journal import Connection
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_journal.provisioning.archive import ArchiveSizing
from opstream_journal.provisioning.provision import check_provisioned, ensure_runner_consumer, provision
from opstream_journal.provisioning.topology import Sizing
from opstream_journal.stores.access_bucket import AccessBucket
from opstream_schemas.broker_access.permissions import ActionAccess
from tests.support.api.service import spec
from tests.support.broker.roles import RoleBroker
from tests.support.journal.journals import opened
from tests.support.journal.populated_journal import KINDS, populate

pytestmark = pytest.mark.broker

OPERATIONS = 12
ACTIONS = tuple(ActionAccess(kind) for kind in KINDS)
SERVICES = ("api", "runner", "projector", "webhooks")


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[tuple[RoleBroker, RoleBroker]]:
    """Two brokers, each with logins of its own."""
    with RoleBroker(tmp_path / "one", ACTIONS) as one, RoleBroker(tmp_path / "two", ACTIONS) as two:
        yield one, two


@pytest.fixture
async def admin_link(brokers: tuple[RoleBroker, RoleBroker]) -> AsyncIterator[Connection]:
    """The operator's connection to the first one, which has everything, sealed, with an archive and operations."""
    link = await brokers[0].connect("admin")
    await provision(link, Sizing(), [spec()], archive=ArchiveSizing(), is_sealing=True)
    await populate(await opened(link), OPERATIONS)
    yield link
    await link.close()


async def opstream(broker: RoleBroker, login: str, *arguments: str) -> Result:
    """Run a command with a login, in a thread of this process."""
    nkey = broker.credentials(login).nkey
    arguments = (*arguments, "--nats", broker.broker.url, "--nats-nkey", nkey)
    return await asyncio.to_thread(CliRunner().invoke, main, arguments)


async def done(broker: RoleBroker, *arguments: str) -> str:
    """The standard output of the operator's command, which succeeds."""
    result = await opstream(broker, "admin", *arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()


async def test_a_restore_to_a_broker_with_other_logins(
    brokers: tuple[RoleBroker, RoleBroker], admin_link: Connection, tmp_path: Path
) -> None:
    """All streams come back, sealed as they were, with keys, secret and consumers; each role of the other broker may
    do there what it does, and the act is on record."""
    one, two = brokers
    await done(one, "apikey", "add", "--subject", "shop", "--scope", "read")
    bucket = AccessBucket(admin_link)
    await bucket.start()
    secret = await bucket.secret()
    await bucket.stop()
    folder = await done(one, "backup", str(tmp_path / "backups"))
    await done(two, "restore", folder)
    assert len((await done(two, "apikey", "list", "--json")).splitlines()) == 1
    acts = await done(two, "audit", "--access", "--json")
    assert '"restored"' in acts
    assert '"key-added"' in acts
    async with AsyncExitStack() as stack:
        links = {}
        for login in SERVICES:
            links[login] = await two.connect(login)
            stack.push_async_callback(links[login].close)
            await check_provisioned(links[login])
        kept = AccessBucket(links["api"])
        await kept.start()
        stack.push_async_callback(kept.stop)
        assert OperationIds(await kept.secret()).stored_id("acme", "x") == OperationIds(secret).stored_id("acme", "x")
        assert len(await (await opened(links["api"])).events("op-0")) == 4
        await ensure_runner_consumer(links["runner"], spec())  # it may not make one: it is there
        operator = await two.connect("admin")
        stack.push_async_callback(operator.close)
        catalog = await admin.stream_config(operator, "KV_actions")
        assert catalog is not None
        assert not catalog.allow_rollup_hdrs


@pytest.mark.parametrize("login", ["auditor", "api"])
@pytest.mark.usefixtures("admin_link")
async def test_no_other_role_may(brokers: tuple[RoleBroker, RoleBroker], tmp_path: Path, login: str) -> None:
    """Neither copy nor bring back: the command ends, says which login it needs, and leaves nothing."""
    one, two = brokers
    refused = await opstream(one, login, "backup", str(tmp_path / "backups"), "--connect-timeout", "3")
    assert refused.exit_code == 1
    assert f"is that of the role {login}" in refused.stderr
    assert "keys/admin.nk" in refused.stderr
    assert not list((tmp_path / "backups").glob("*"))
    folder = await done(one, "backup", str(tmp_path / "backups"))
    refused = await opstream(two, login, "restore", folder, "--connect-timeout", "3")
    assert refused.exit_code == 1
    assert f"is that of the role {login}" in refused.stderr
    assert "keys/admin.nk" in refused.stderr
    operator = await two.connect("admin")
    assert [one for one in required_streams() if await admin.stream_config(operator, one) is not None] == []
    await operator.close()
