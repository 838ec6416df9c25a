"""A process whose login is another role's, or lacks a right, ends with the reason and the next step."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import httpx
import msgspec
import pytest

from opstream.broker_setup.server_config import accounts_config
from opstream.broker_setup.setup_folder import KEYS_FOLDER, make_parties
from opstream.cli.broker_session import broker_session
from opstream.events import Event, EventsBroker, subscribe
from opstream.terminal.console import CommandError
from opstream_api import main as api
from opstream_api.settings import Settings as ApiSettings
from opstream_journal import Connection, connect
from opstream_journal.errors import JournalUnavailable, LoginNotPermitted
from opstream_journal.jetstream import rpc
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_journal.provisioning import login_check
from opstream_journal.provisioning.login_check import LoginCheck
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_journal.runtime.broker_monitor import LOGIN_DENIED, BrokerMonitor
from opstream_journal.runtime.conditions import Conditions
from opstream_projector import main as projector
from opstream_projector.settings import Settings as ProjectorSettings
from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.broker_access.logins import need_of_service
from opstream_schemas.broker_access.permissions import ActionAccess, Role, vital_permissions
from opstream_schemas.names import Kind
from opstream_schemas.urls import BrokerCredentials
from opstream_webhooks import main as webhooks
from opstream_webhooks.config import ConfigSource, ReloadableConfig
from opstream_webhooks.settings import Settings as WebhooksSettings
from tests.support.broker.roles import RoleBroker
from tests.support.broker.server import Broker, free_port
from tests.support.system.processes import Process, run
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

OWN: Final = Kind("book", "upload")
ACCESS: Final = (ActionAccess(OWN),)
SPEC: Final = ActionSpec(
    resource=OWN.resource, action=OWN.action, summary="", action_version=1, input_schema={}, result_schema={}
)
DURABLE: Final = "mailer"
LOGINS: Final = ("api", "runner", "projector", "webhooks", f"subscriber-{DURABLE}", "auditor")
USER: Final = BrokerCredentials(user="ours", password="secret")
RUNNER_PULL: Final = f"$JS.API.CONSUMER.MSG.NEXT.OPERATIONS.{subjects.runner_consumer(OWN)}"
REQUESTED: Final = subjects.event_subject("op1", OWN, "requested")


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoleBroker]:
    with RoleBroker(tmp_path_factory.mktemp("roles"), ACCESS, durables=[DURABLE, "billing"]) as broker:
        asyncio.run(_provision(broker))
        yield broker


async def _provision(broker: RoleBroker) -> None:
    operator = await broker.connect("admin")
    await provision(operator, Sizing(), [SPEC])
    await operator.close()


def service(name: str, url: str, credentials: BrokerCredentials) -> Callable[[asyncio.Event], Awaitable[None]]:
    """What a process of this service runs."""
    login = {"servers": (url,), "credentials": credentials}
    if name == "api":
        settings = ApiSettings(**login, port=free_port())
        return lambda stopping: api.serve(settings, stopping)
    if name == "projector":
        return lambda stopping: projector.serve(ProjectorSettings(**login), stopping)
    source = ConfigSource()
    return lambda stopping: webhooks.serve(WebhooksSettings(**login, source=source), ReloadableConfig(source), stopping)


@pytest.mark.parametrize("name", ["api", "projector", "webhooks"])
@pytest.mark.parametrize("login", LOGINS)
async def test_a_service_with_the_key_of_another_role(roles: RoleBroker, name: str, login: str) -> None:
    """It ends at once, and names the role that it has, the one that it needs, and the option."""
    if login == name:
        return
    with pytest.raises(LoginNotPermitted) as refused:
        await service(name, roles.broker.url, roles.credentials(login))(asyncio.Event())
    text = str(refused.value)
    assert f"the login of opstream {name} at the broker is that of the role {login.partition('-')[0]}" in text
    assert f"it needs the role {name}; give --nats-nkey the key of that role" in text
    assert f"keys/{name}.nk" in text


async def test_a_runner_with_the_key_of_another_role(roles: RoleBroker, tmp_path: Path) -> None:
    """Its process ends with status 1, and the reason in one line."""
    (tmp_path / "own_actions.py").write_text(
        "from opstream import ActionContext, action\n\n"
        "@action('book:upload')\nasync def upload(request: int, ctx: ActionContext) -> int:\n    return request\n"
    )
    logins = ["projector", f"subscriber-{DURABLE}"]
    ends = await asyncio.gather(
        *(
            asyncio.to_thread(
                run,
                *("runner", "--nats", roles.broker.url, "--nats-nkey", roles.credentials(login).nkey),
                *("--actions", "own_actions"),
                cwd=tmp_path,
            )
            for login in logins
        )
    )
    for login, end in zip(logins, ends, strict=True):
        assert end.returncode == 1
        assert f"opstream runner at the broker is that of the role {login.partition('-')[0]}" in end.stderr
        assert "it needs the role runner; give --nats-nkey" in end.stderr
        assert "can't be pulled" not in end.stderr


async def test_a_hub_has_three_logins(roles: RoleBroker, tmp_path: Path) -> None:
    """Each of its connections is in the account of its service, none in the operator's, though that key is beside
    them. With the key of one role only, and with two that were swapped, it ends and names the one that is wrong."""
    keys, port = roles.folder / KEYS_FOLDER, free_port()
    shutil.copytree(keys, swapped := tmp_path / "keys")
    shutil.copy(keys / "projector.nk", swapped / "api.nk")
    hub = ("hub", "--nats", roles.broker.url, "--port", str(port))
    wrong_logins = [
        (("--nats-nkey", str(keys / "projector.nk")), "api|webhooks"),  # the one that finds it first
        (("--nats-nkeys", str(swapped)), "api"),
    ]
    with Process(*hub, "--nats-nkeys", str(keys)) as process:
        for options, services in wrong_logins:
            end = await asyncio.to_thread(run, *hub[:3], "--port", "0", *options)
            assert end.returncode == 1
            assert re.search(f"opstream ({services}) at the broker is that of the role projector", end.stderr)
            assert "give --nats-nkeys a folder with the keys of all three" in end.stderr
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as http:
            await eventually(lambda: _is_ready(http), within=20)
        connections = roles.broker.monitor("/connz?auth=1")["connections"]
        assert sorted(one["account"] for one in connections if one["name"].startswith("opstream-")) == [
            "OPSTREAM_API",
            "OPSTREAM_PROJECTOR",
            "OPSTREAM_WEBHOOKS",
        ]
        assert process.is_running


async def _is_ready(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    ("command", "needed"),
    [("audit", "auditor"), ("verify", "auditor"), *((one, "admin") for one in ("apikey", "backup", "provision"))],
)
async def test_a_command_with_the_key_of_another_role(roles: RoleBroker, command: str, needed: str) -> None:
    """It ends before it has done anything; with the right one it begins."""

    async def begin(login: str) -> None:
        servers, credentials = [roles.broker.url], roles.credentials(login)
        async with broker_session(servers, command, 10, credentials=credentials):
            pass

    for login in LOGINS:
        if login == needed:
            continue
        with pytest.raises(CommandError, match=f"it needs the role {needed}; give --nats-nkey"):
            await begin(login)
    await begin("admin")
    await begin(needed)


async def test_a_subscriber_with_the_key_of_another(roles: RoleBroker) -> None:
    """Neither another role's key nor that of another subscriber will do, and the text says which one would."""
    for login, shown in (("projector", "projector"), (f"subscriber-{DURABLE}", f"subscriber for '{DURABLE}'")):
        events = EventsBroker(roles.broker.url, credentials=roles.credentials(login), logger=None)

        @subscribe(events, "*", durable="billing")
        async def hear(event: Event) -> None: ...

        with pytest.raises(LoginNotPermitted) as refused:
            await events.start()
        text = str(refused.value)
        assert f"that of the role {shown} " in text
        assert "keys/subscriber-billing.nk" in text


async def test_a_role_that_changes_later(tmp_path: Path) -> None:
    """A key that the broker's operator gives to another role while its process runs turns /readyz to 503, and back."""
    with RoleBroker(tmp_path, ACCESS) as broker:
        await _provision(broker)
        connection = await connect(
            [broker.broker.url],
            "test",
            connect_timeout=10,
            credentials=broker.credentials("runner"),
            need=need_of_service(Role.RUNNER),
        )
        conditions = Conditions()
        login = LoginCheck(connection, Role.RUNNER, actions=ACCESS)
        async with BrokerMonitor(connection, conditions, login, interval=0.05).running():
            await login.check()
            right = accounts_config(parties := make_parties(broker.folder / KEYS_FOLDER, ACCESS, []))
            keys = {party.role: party.key for party in parties}
            swapped = {Role.RUNNER: keys[Role.PROJECTOR], Role.PROJECTOR: keys[Role.RUNNER]}
            other = [msgspec.structs.replace(one, key=swapped.get(one.role, one.key)) for one in parties]
            broker.broker.reload(accounts_config(other))
            await eventually(lambda: conditions.is_blocked and conditions.current[0].name == LOGIN_DENIED, within=20)
            assert "that of the role projector" in conditions.current[0].message
            assert "give --nats-nkey" in conditions.current[0].next_step
            broker.broker.reload(right)
            await eventually(lambda: not conditions.is_blocked, within=20)
        await connection.close()


async def test_an_action_that_the_key_is_not_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner whose broker was not told of an action ends with the subject, and the option that names the action."""
    monkeypatch.setattr(login_check, "_GRACE", 0)
    with RoleBroker(tmp_path, [ActionAccess(Kind("film", "cut"))]) as broker:
        await _provision(broker)
        runner = await broker.connect("runner")
        with pytest.raises(LoginNotPermitted) as refused:
            await LoginCheck(runner, Role.RUNNER, actions=ACCESS).check()
        await runner.close()
    assert f"may not send to {RUNNER_PULL}, by which the role runner takes its operations" in str(refused.value)
    assert "'opstream broker-config --actions'" in str(refused.value)


def own_accounts(denied: str) -> str:
    """Accounts that an operator wrote: one, with a user who may not send to a subject."""
    operator = "{ user: operator, password: secret }"
    user = f'{{ user: ours, password: secret, permissions: {{ publish: {{ deny: ["{denied}"] }} }} }}'
    return f"accounts {{ theirs {{ jetstream: enabled, users: [{operator}, {user}] }} }}"


async def _connect_with(broker: Broker, user: str) -> Connection:
    credentials = BrokerCredentials(user=user, password="secret") if user else BrokerCredentials()
    return await connect(
        [broker.url], "test", connect_timeout=10, credentials=credentials, need=need_of_service(Role.RUNNER)
    )


async def test_accounts_of_somebody_else() -> None:
    """There only what is really denied counts: a pull at the start, a publish once one was denied."""
    with Broker(extra=own_accounts(RUNNER_PULL)) as broker:
        operator = await _connect_with(broker, "operator")
        await provision(operator, Sizing(), [SPEC])
        await LoginCheck(operator, Role.RUNNER, actions=ACCESS).check()
        ours = await _connect_with(broker, "ours")
        with pytest.raises(LoginNotPermitted, match=f"may not send to {RUNNER_PULL.replace('$', '.')}"):
            await LoginCheck(ours, Role.RUNNER, actions=ACCESS).check()
        await LoginCheck(ours, Role.PROJECTOR).check()
        await ours.close()
        await operator.close()
        broker.reload(own_accounts("operations.*.*.*.requested"))
        ours = await _connect_with(broker, "ours")
        conditions = Conditions()
        async with BrokerMonitor(ours, conditions, LoginCheck(ours, Role.API), interval=0.05).running():
            with pytest.raises(JournalUnavailable):
                await rpc.publish(ours, REQUESTED, b"{}", {}, timeout=0.2)
            await eventually(lambda: conditions.is_blocked, within=20)
            assert "by which the role api accepts operations" in conditions.current[0].message
            broker.reload(own_accounts("nothing"))
            await eventually(lambda: not conditions.is_blocked, within=20)
        await ours.close()


async def test_a_try_has_no_effect() -> None:
    """On a broker without accounts nothing is denied, a try takes no message, and stores none."""
    with Broker() as broker:
        operator = await _connect_with(broker, "")
        await provision(operator, Sizing(), [SPEC])
        await rpc.publish(operator, REQUESTED, b"{}", {})
        for role in (Role.RUNNER, Role.PROJECTOR, Role.WEBHOOKS, Role.API):
            login = LoginCheck(operator, role, actions=ACCESS if role is Role.RUNNER else ())
            await login.check()
            for grant in vital_permissions(role, actions=ACCESS):
                operator.denials.add(grant.subject.replace("*", "x").replace(">", "x"))  # so that publishes are tried
            assert [await login.look() for _ in range(8)] == [None] * 8
        for stream, consumer in ((subjects.OPERATIONS_STREAM, subjects.PROJECTOR_CONSUMER),):
            info = await admin.consumer_info(operator, stream, consumer)
            assert info is not None
            assert (info["num_ack_pending"], info["num_waiting"]) == (0, 0)
        state = {
            name: (await admin.stream_info(operator, name))["state"]["messages"]
            for name in ("OPERATIONS", "KV_operations", "DELIVERIES")
        }
        assert state == {"OPERATIONS": 1, "KV_operations": 0, "DELIVERIES": 0}
        await operator.close()
