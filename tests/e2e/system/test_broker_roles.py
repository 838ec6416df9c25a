"""The whole system on the broker that `opstream broker-config` sets up: each process has the key of its role only."""

from __future__ import annotations

import re
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from opstream.events import Event, EventsBroker, subscribe
from opstream_journal import connect
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_schemas import subjects
from opstream_schemas.broker_access.permissions import API, ActionAccess, Role, Way, permissions
from opstream_schemas.names import Kind
from opstream_schemas.urls import BrokerCredentials
from tests.support.broker.server import SERVER, free_port
from tests.support.system import role_actions
from tests.support.system.processes import Process, run
from tests.support.system.scrape import scrape
from tests.support.system.wait import eventually
from tests.support.webhooks.receiver import SECRET, WebhookReceiver, receiving

pytestmark = pytest.mark.e2e

ACTIONS: Final = "role_actions"
DURABLE: Final = "mailer"
DONE: Final = ("retried", "first", "second", "r0", "r1", "r2", "whole")
"""Operations that succeed."""
_SENT: Final = re.compile(r'"OPSTREAM_([A-Z_a-z]+)/nkey:\w+" - <<- \[H?PUB (\S+)')
"""A line of the broker's log: the account of the sender, and the subject."""
REFUSED: Final = (
    subjects.bucket_subject(subjects.VIEW_BUCKET, "opstream-probe"),  # all look by it whether the server stores
    f"{API}.CONSUMER.CREATE.*.*",  # a scan asks for a consumer first, and reads without one if it gets none
)
"""What processes send although they may not: they are refused at once, and go on."""


class SecuredSystem:
    """A broker with TLS and a login for each role, and the services on it."""

    def __init__(self, folder: Path, stack: ExitStack, receiver: WebhookReceiver) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{free_port()}"
        self.services: dict[str, Process] = {}
        self.health_ports = {name: free_port() for name in ("api", "runner", "projector", "webhooks")}
        self._stack = stack
        self._host = receiver.host
        shutil.copy(str(role_actions.__file__), folder / f"{ACTIONS}.py")

    def begin(self) -> None:
        made = self.run(
            *("broker-config", "--out", "setup", "--actions", ACTIONS, "--subscriber", DURABLE),
            *("--nats-port", str(self.port), "--test-certificates"),
        )
        assert "made       " in made
        command = [str(SERVER), "-c", str(self.folder / "setup" / "n1.conf"), "-V"]  # its log has what each login sends
        self.broker = self._stack.enter_context(Process(command=command, cwd=self.folder))
        self.broker.wait_for("Server is ready")
        self.run("provision", *self.login("admin"), "--actions", ACTIONS, "--archive", "--seal-catalog")

    def sent(self) -> dict[Role, set[str]]:
        """All subjects to which the processes of each role have sent, answers to requests left out."""
        found: dict[Role, set[str]] = {}
        for account, subject in _SENT.findall(self.broker.output):
            if not subject.startswith(("_INBOX.", "_R_.")):  # the second: across accounts
                found.setdefault(Role(account.partition("_")[0].lower()), set()).add(subject)
        return found

    def start_services(self, *of_api: str) -> None:
        callbacks = ("--callback-host", self._host, "--allow-http")
        options = {
            "api": ("--port", self.url.rpartition(":")[2], *callbacks, *of_api),
            "runner": ("--actions", ACTIONS),
            "projector": (),
            "webhooks": (*callbacks, "--allow-private", "127.0.0.0/8"),
        }
        for name, more in options.items():
            health = ("--health-port", str(self.health_ports[name]))
            secrets = {"OPSTREAM_CALLBACK_SECRETS": SECRET} if name == "webhooks" else {}
            process = Process(name, *self.login(name), *more, *health, cwd=self.folder, extra=secrets)
            self.services[name] = self._stack.enter_context(process)

    def run(self, *arguments: str) -> str:
        done = run(*arguments, cwd=self.folder)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def login(self, name: str) -> tuple[str, ...]:
        setup = self.folder / "setup"
        files = ("--nats-nkey", str(setup / "keys" / f"{name}.nk"), "--nats-tls-ca", str(setup / "tls" / "ca.pem"))
        return ("--nats", f"nats://127.0.0.1:{self.port}", *files)

    def subscriber(self, login: str, heard: list[str]) -> EventsBroker:
        _, url, _, nkey, _, ca = self.login(login)
        events = EventsBroker(url, credentials=BrokerCredentials(nkey=nkey, tls_ca=ca), logger=None)

        @subscribe(events, "work:*", durable=DURABLE, events="succeeded", start="all")
        async def hear(event: Event) -> None:
            heard.append(event.operation_id)

        return events


async def test_everything_works_with_the_keys_of_roles(tmp_path: Path) -> None:
    """Retry, lock of a group, rate, cancel, children, webhook, subscriber, archive and the auditor's commands work, and
    no process asks for more than it may."""
    heard: list[str] = []
    with ExitStack() as stack:
        async with receiving() as receiver:
            system = SecuredSystem(tmp_path, stack, receiver)
            system.begin()
            maker = system.subscriber("admin", heard)
            await maker.start()  # makes its durable, which it may not do itself
            await maker.stop()
            system.start_services()
            async with httpx.AsyncClient(base_url=system.url, trust_env=False, timeout=30) as http:
                await eventually(lambda: _is_ready(http), within=30)
                await _work(http, receiver.url)
                events = system.subscriber(f"subscriber-{DURABLE}", heard)
                await events.start()
                await eventually(lambda: set(DONE) <= set(heard), within=10)
                await events.stop()
                await eventually(lambda: receiver.of("retried"), within=10)
                assert receiver.of("retried")[0].verified()["type"].endswith("succeeded.v1")
            with httpx.Client(trust_env=False, timeout=10) as plain:
                urls = {name: f"http://127.0.0.1:{port}" for name, port in system.health_ports.items()}
                # By the projector, which may be behind, and calls an action that it does not know yet "other".
                await eventually(
                    lambda: scrape(plain, urls["projector"]).series("opstream_operations_total"), within=30
                )
                pages = {name: scrape(plain, url) for name, url in urls.items()}
            assert pages["projector"].series("opstream_timers_overdue")  # it may read all that it shows
            assert pages["webhooks"].series("opstream_webhooks_oldest_due_seconds")
            assert re.search(r"the certificate of .* is valid until", system.run("doctor", *system.login("admin")))
            auditor = system.login("auditor")
            assert "requested" in system.run("replay", *auditor)
            system.run("verify", *auditor)
            system.run("verify", "--chain", *auditor)
            assert "Succeeded" in system.run("audit", "retried", *auditor)
            system.run("export", "history.parquet", *auditor)
            found = system.sent()
            assert {Role.API, Role.RUNNER, Role.PROJECTOR, Role.WEBHOOKS, Role.SUBSCRIBER, Role.AUDITOR} <= found.keys()
            _has_sent_what_it_may(system)
            for name, process in system.services.items():
                assert process.is_running, process.output
                assert "no responder" not in process.output, name
                assert " ERROR " not in process.output, name


def _has_sent_what_it_may(system: SecuredSystem) -> None:
    """Check that the table has a row for each subject to which a process has sent, by its role and its stream."""
    kinds = [Kind("work", name) for name in ("flaky", "first", "second", "rated", "whole")]
    actions = [ActionAccess(kind, "group.works") for kind in kinds]
    for role, sent in system.sent().items():
        rows = [row.subject for row in permissions(role, actions=actions, durable=DURABLE) if row.way is not Way.LISTEN]
        assert [one for one in sorted(sent) if not any(_matches(row, one) for row in (*rows, *REFUSED))] == [], role


def _matches(pattern: str, subject: str) -> bool:
    parts = (re.escape(part).replace(r"\*", r"[^.]+") for part in pattern.removesuffix(".>").split("."))
    return bool(re.fullmatch(r"\.".join(parts) + (r"\..+" if pattern.endswith(".>") else ""), subject))


async def test_an_api_that_asks_for_keys_needs_no_more(tmp_path: Path) -> None:
    """With the key of the role `api`: callers are known and revoked, submit, wait, read and cancel. A callback has the
    client's own id, and the id under which the operation is stored nowhere."""
    with ExitStack() as stack:
        async with receiving() as receiver:
            system = SecuredSystem(tmp_path, stack, receiver)
            system.begin()
            system.start_services("--auth", "keys")
            making = ("apikey", "add", *system.login("admin"), "--tenant", "acme", "--subject", "ann")
            key = system.run(*making, "--scope", "submit:work:*,read,cancel").strip()
            options: dict[str, Any] = {"base_url": system.url, "trust_env": False, "timeout": 30}
            async with httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}, **options) as http:
                await eventually(lambda: _is_ready(http), within=30)
                await _submit(http, "work:flaky", "retried", callback=receiver.url)
                await _submit(http, "work/8:first", "stopped", callback=receiver.url, seconds=600)
                await eventually(lambda: _status(http, "stopped", "Running"), within=10)
                async with httpx.AsyncClient(**options) as stranger:
                    assert (await stranger.get("/status/stopped")).status_code == 401
                assert (await http.post("/status/stopped:cancel", json={"reason": "enough"})).is_success
                assert (await http.get("/status/retried", headers={"Prefer": "wait=20"})).json()[
                    "status"
                ] == "Succeeded"
                waited = await http.get("/status/stopped", headers={"Prefer": "wait=20"})
                assert waited.json()["status"] == "Canceled"
                for own_id in ("retried", "stopped"):
                    await eventually(lambda own_id=own_id: receiver.of(own_id), within=10)
                stored = await _stored_ids(system)
                assert (len(stored), {"retried", "stopped"} & stored) == (2, set())
                for one in receiver.received:
                    event = one.verified()
                    assert event["subject"] in {"retried", "stopped"}
                    assert not [hidden for hidden in stored if hidden in f"{one.path} {one.headers} {one.body!r}"]
                system.run("apikey", "revoke", *system.login("admin"), key.split("_")[1])
                await eventually(lambda: _is_refused(http), within=2)
            for name, process in system.services.items():
                assert process.is_running, process.output
                assert "no responder" not in process.output, name
                assert " ERROR " not in process.output, name
            _has_sent_what_it_may(system)


async def _stored_ids(system: SecuredSystem) -> set[str]:
    _, url, _, nkey, _, ca = system.login("auditor")
    link = await connect([url], "auditor", connect_timeout=10, credentials=BrokerCredentials(nkey=nkey, tls_ca=ca))
    try:
        viewed = subjects.bucket_stream(subjects.VIEW_BUCKET)
        found = await admin.stream_subjects(link, viewed, subjects.bucket_subject(subjects.VIEW_BUCKET, ">"))
    finally:
        await link.close()
    return {one.rpartition(".")[2] for one in found}


async def _is_refused(http: httpx.AsyncClient) -> bool:
    return (await http.get("/openapi.json")).status_code == 401


async def _is_ready(http: httpx.AsyncClient) -> bool:
    try:
        ready = await http.get("/readyz")
        return ready.status_code == 200 and "/work:rated" in (await http.get("/openapi.json")).text
    except httpx.TransportError:
        return False


async def _work(http: httpx.AsyncClient, callback: str) -> None:
    await _submit(http, "work:flaky", "retried", callback=callback)
    await _submit(http, "work/7:first", "first", seconds=0.5)
    await _submit(http, "work/7:second", "second")
    await _submit(http, "work/8:first", "stopped", seconds=600)
    for number in range(3):
        await _submit(http, "work:rated", f"r{number}")
    await _submit(http, "work:whole", "whole")
    await eventually(lambda: _status(http, "stopped", "Running"), within=10)
    assert (await http.post("/status/stopped:cancel", json={"reason": "enough"})).is_success
    for operation_id in DONE:
        await eventually(lambda operation_id=operation_id: _status(http, operation_id, "Succeeded"), within=15)
    await eventually(lambda: _status(http, "stopped", "Canceled"), within=10)
    (left, _) = (await http.get("/status/whole")).json()["children"][1]["ids"]
    await eventually(lambda: _status(http, left, "Canceled"), within=10)
    waited = await http.get("/status/second", headers={"Prefer": "wait=5"})
    assert waited.json()["status"] == "Succeeded"


async def _submit(http: httpx.AsyncClient, target: str, operation_id: str, *, callback: str = "", **given: Any) -> None:
    headers = {"Operation-Id": operation_id} | ({"Operation-Callback": callback} if callback else {})
    submitted = await http.post(f"/{target}", json=given, headers=headers)
    assert submitted.status_code == 202, submitted.text


async def _status(http: httpx.AsyncClient, operation_id: str, wanted: str) -> bool:
    return bool((await http.get(f"/status/{operation_id}")).json()["status"] == wanted)
