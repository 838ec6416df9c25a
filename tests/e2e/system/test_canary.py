"""Confidential operations in the whole system: nothing that any store, file or log has says what they are about, and
what is erased stays so, whatever is brought back."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import pyarrow.parquet
import pytest

from opstream_journal import Connection
from opstream_journal.jetstream.scans.stream_scan import scan_stream
from opstream_journal.runtime import crash_points
from opstream_journal.runtime.crash_points import CrashPoint
from opstream_schemas.seals.operation_key import SEALED_PREFIX
from tests.support.broker.server import Broker, free_port
from tests.support.journal.journals import linked
from tests.support.keys import confidential_actions
from tests.support.keys.kek_files import write_keks
from tests.support.system.processes import Process, run
from tests.support.system.wait import eventually
from tests.support.webhooks.receiver import SECRET, WebhookReceiver, receiving

pytestmark = pytest.mark.e2e

CANARY: Final = "canary-0f7c1b"
PLAIN: Final = "budgie-0f7c1b"
"""What operations in the clear are about: where it can't be found, the look itself is broken."""
LARGE: Final = 300 * 1024
ENDS: Final = ("succeed", "fail", "raise")


class Site:
    """All services of one system, in processes, on a broker of their own."""

    def __init__(self, folder: Path, broker: Broker, receiver: WebhookReceiver, stack: AsyncExitStack) -> None:
        self.folder = folder
        self.broker = broker
        self.receiver = receiver
        self.processes: list[Process] = []
        self._stack = stack
        self._callbacks = ("--allow-http", "--callback-host", receiver.host)
        self.kek = write_keks(folder / "kek")
        self._ports = {name: free_port() for name in ("api", "projector", "runner", "webhooks")}
        self._http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self._ports['api']}", trust_env=False, timeout=20)

    async def start(self) -> None:
        """Start all, and wait until the API and the runner are ready."""
        await self._stack.enter_async_context(self._http)
        options = {
            "projector": ("--index", f"sqlite:{self.folder / 'index.db'}"),
            "runner": ("--actions", confidential_actions.__name__, "--kek-file", str(self.kek)),
            "webhooks": ("--callback-secret", SECRET, "--allow-private", "127.0.0.0/8", *self._callbacks),
        }
        assert (
            await self.opstream("provision", "--archive", "--actions", confidential_actions.__name__)
        ).returncode == 0
        for name, own in options.items():
            self._begin(name, *own, "--health-port", str(self._ports[name]))
        await self.start_api()
        async with httpx.AsyncClient(trust_env=False) as http:
            for name in options:
                await eventually(lambda name=name: _is_ready(http, self._ports[name]), within=30, poll=0.1)

    async def start_api(self, crash: str = "") -> Process:
        """Start an API, which ends itself at a crash point if one is given, and wait until it is ready."""
        options = ("--port", str(self._ports["api"]), "--kek-file", str(self.kek))
        options += ("--index", f"sqlite:{self.folder / 'index.db'}", *self._callbacks)
        api = self._begin("api", *options, crash=crash)
        await eventually(lambda: not api.is_running or _is_ready(self._http, self._ports["api"]), within=30, poll=0.1)
        assert api.is_running, api.output
        return api

    async def kill_api(self) -> None:
        """End the API."""
        self.processes[-1].send(signal.SIGKILL)
        await eventually(lambda: not self.processes[-1].is_running, within=10)

    def _begin(self, name: str, *options: str, crash: str = "") -> Process:
        extra = {crash_points.CRASH_VARIABLE: crash, "OPSTREAM_LOG_LEVEL": "debug"}
        process = self._stack.enter_context(Process(name, "--nats", self.broker.url, *options, extra=extra))
        self.processes.append(process)
        return process

    async def opstream(self, *arguments: str, url: str = "") -> Any:
        """Run a command with this broker, or with another one."""
        return await asyncio.to_thread(run, *arguments, "--nats", url or self.broker.url)

    async def submit(self, path: str, said: dict[str, Any], operation_id: str = "") -> str:
        """Submit an operation; return its id."""
        headers = {"Operation-Callback": self.receiver.url} | ({"Operation-Id": operation_id} if operation_id else {})
        answer = await self._http.post(path, json=said, headers=headers)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    async def ended(self, operation_id: str) -> dict[str, Any]:
        """The status of an operation, once it has ended and its receiver knows."""
        found: dict[str, Any] = {}

        async def is_over() -> bool:
            found.update((await self._http.get(f"/status/{operation_id}")).json())
            return "finishedAt" in found and bool(self.receiver.of(operation_id))

        await eventually(is_over, within=30, poll=0.1)
        return found

    async def call(self, method: str, path: str, **said: Any) -> httpx.Response:
        """Send a request to the API."""
        return await self._http.request(method, path, **said)


async def _is_ready(http: httpx.AsyncClient, port: int) -> bool:
    try:
        return (await http.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A system that is ready."""
    async with AsyncExitStack() as stack:
        broker = stack.enter_context(Broker(store=tmp_path / "data"))
        site = Site(tmp_path, broker, await stack.enter_async_context(receiving()), stack)
        await site.start()
        yield site


@pytest.fixture
def other() -> Iterator[Broker]:
    """Another broker, which has nothing."""
    with Broker("other") as broker:
        yield broker


async def stored(link: Connection) -> dict[str, bytes]:
    """All messages of each stream, with subjects and headers."""
    found = {}
    names = msgspec.json.decode((await link.nc.request("$JS.API.STREAM.NAMES", b"", timeout=5)).data)
    for stream in names["streams"]:
        parts: list[bytes] = []
        async for batch in scan_stream(link, stream, is_paged=True):
            for message in batch:
                parts += [message.subject.encode(), repr(message).encode(), message.data]
        found[stream] = b"\n".join(parts)
    return found


def files(folder: Path) -> bytes:
    """All bytes below a folder."""
    return b"\n".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


async def test_no_store_has_a_confidential_text(site: Site, other: Broker) -> None:
    """Operations that succeed, fail, retry, wait for signals and are canceled, small and large ones: what they are
    about is in no stream, file, row, delivery, export, backup, list, history or log. Of their like in the clear it is.
    The chain holds before and after the erasure of all of them."""
    secret, plain = [], []
    for path, word, ids in (("check", CANARY, secret), ("check-apart", CANARY, secret), ("list", PLAIN, plain)):
        for end, size in itertools.product(ENDS, (1, LARGE)):
            ids.append(await site.submit(f"/person/7:{path}", {"secret": word + "x" * size, "end": end}))
        asking = await site.submit(f"/person/7:{path}", {"secret": word, "asks": True})
        lazy = await site.submit(f"/person/7:{path}", {"secret": word, "end": "sleep"})
        assert (await site.call("POST", f"/status/{asking}:signal/approval", json={"note": word})).is_success
        assert (await site.call("POST", f"/status/{lazy}:cancel", json={"reason": f"{word} asked"})).is_success
        ids += [asking, lazy]
    for one in (*secret, *plain):
        monitor = await site.ended(one)
        if monitor["status"] == "Succeeded":
            assert (CANARY if one in secret else PLAIN) in json.dumps(monitor["result"])

    parquet, backups = site.folder / "out" / "events.parquet", site.folder / "backups"
    parquet.parent.mkdir()
    assert (await site.opstream("export", str(parquet))).returncode == 0
    backup = await site.opstream("backup", str(backups))
    assert backup.returncode == 0, backup.stderr
    assert (await site.opstream("restore", backup.stdout.strip(), url=other.url)).returncode == 0
    looks: dict[str, bytes] = {}
    async with linked(site.broker.url) as link, linked(other.url) as restored:
        looks |= {f"stream {name}": said for name, said in (await stored(link)).items()}
        looks |= {f"restored {name}": said for name, said in (await stored(restored)).items()}
    looks["disk"] = files(site.folder / "data")
    looks["index"] = b"".join(path.read_bytes() for path in site.folder.glob("index.db*"))
    looks["export"] = json.dumps(pyarrow.parquet.read_table(parquet).to_pylist(), default=str).encode()
    looks["logs"] = "".join(process.output for process in site.processes).encode()
    looks["history"] = b"".join(
        [(await site.call("GET", f"/status/{one}/events")).content for one in (*secret, *plain)]
    )
    looks["list"] = (await site.call("GET", "/status", params={"maxpagesize": "100"})).content
    looks["audit"] = "".join([(await site.opstream("audit", one)).stdout for one in (*secret, *plain)]).encode()
    assert {name for name, said in looks.items() if CANARY.encode() in said} == set()
    assert not any(CANARY.encode() in one.body for one in site.receiver.received)
    blind = {name for name, said in looks.items() if PLAIN.encode() not in said}
    streams = {"OPERATIONS", "ARCHIVE", "KV_operations", "OBJ_payloads"}
    assert blind.isdisjoint({"disk", "index", "export", "logs", "history", "list", "audit"}), blind
    assert blind.isdisjoint({f"{place} {name}" for place in ("stream", "restored") for name in streams}), blind
    assert SEALED_PREFIX.encode() in looks["stream OPERATIONS"]
    assert "restored KV_operation_keys" not in looks or looks["restored KV_operation_keys"] == b""

    assert (await site.opstream("verify", "--chain")).returncode == 0
    for one in secret:
        assert (await site.call("DELETE", f"/status/{one}")).status_code == 204
        assert CANARY not in (await site.call("GET", f"/status/{one}")).text
    assert (await site.opstream("verify", "--chain")).returncode == 0
    assert (await site.opstream("verify")).returncode == 0


async def test_nothing_brings_back_what_is_erased(site: Site, other: Broker) -> None:
    """A backup and keys of before the erasure, and the list of erasures: on a new broker what is erased can't be read,
    and everything else can. The key-encryption key was rotated meanwhile."""
    kept, gone, late = [await site.submit("/person/7:check", {"secret": CANARY}) for _ in range(3)]
    for one in (kept, gone, late):
        assert (await site.ended(one))["status"] == "Succeeded"
    keys, erased = site.folder / "keys", site.folder / "erased"
    assert (await site.opstream("keys", "export", str(keys))).returncode == 0
    backup = (await site.opstream("backup", str(site.folder / "backups"))).stdout.strip()
    assert (await site.call("DELETE", f"/status/{gone}", params={"reason": "ticket 4711"})).status_code == 204
    done = await site.opstream("erase", late, "--reason", "ticket 4712")
    assert (done.returncode, done.stdout.rstrip().endswith(": ticket 4712")) == (0, True)
    assert (await site.opstream("erase", late)).stdout == done.stdout
    assert (await site.opstream("erase", "unknown")).returncode == 1
    erased.write_text((await site.opstream("keys", "erased")).stdout, encoding="utf-8")
    assert [json.loads(line)["erased"]["reason"] for line in erased.read_text(encoding="utf-8").splitlines()] == [
        "ticket 4711",
        "ticket 4712",
    ]
    assert run("keys", "new", str(site.kek)).returncode == 0
    assert "1 key " in (await site.opstream("keys", "rotate", "--kek-file", str(site.kek))).stdout
    assert "0 keys " in (await site.opstream("keys", "rotate", "--kek-file", str(site.kek))).stdout

    restored = await site.opstream("restore", backup, "--erased", str(erased), url=other.url)
    assert restored.returncode == 0, restored.stderr
    assert (await site.opstream("provision", url=other.url)).returncode == 0
    brought = await site.opstream("keys", "import", str(keys), url=other.url)
    assert brought.stdout.startswith("1 key brought"), brought.stdout + brought.stderr
    port = free_port()
    with Process("api", "--nats", other.url, "--port", str(port), "--kek-file", str(site.kek)):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
            await eventually(lambda: _is_ready(http, port), within=30, poll=0.1)
            monitors = {one: (await http.get(f"/status/{one}")).json() for one in (kept, gone, late)}
    assert CANARY in json.dumps(monitors[kept])
    assert "erased" not in monitors[kept]
    for one, reason in ((gone, "ticket 4711"), (late, "ticket 4712")):
        assert (monitors[one]["erased"]["reason"], "result" in monitors[one]) == (reason, False)
        assert CANARY not in json.dumps(monitors[one])
    assert (await site.opstream("verify", "--chain", url=other.url)).returncode == 0


async def test_kills_between_two_steps(site: Site) -> None:
    """The API ends once a key is stored, and the repeated request finds that key; it ends once an erasure is recorded,
    which holds for everybody from then on, and the repeated one destroys the key."""
    await site.kill_api()
    armed = await site.start_api(crash=CrashPoint.API_KEY_MADE)
    with pytest.raises(httpx.TransportError):
        await site.submit("/person/7:check", {"secret": CANARY}, "killed")
    await eventually(lambda: not armed.is_running, within=10)
    armed = await site.start_api(crash=CrashPoint.API_ERASURE_RECORDED)
    assert await site.submit("/person/7:check", {"secret": CANARY}, "killed") == "killed"
    assert CANARY in json.dumps(await site.ended("killed"))
    with pytest.raises(httpx.TransportError):
        await site.call("DELETE", "/status/killed", params={"reason": "ticket 4711"})
    await eventually(lambda: not armed.is_running, within=10)
    await site.start_api()
    monitor = (await site.call("GET", "/status/killed")).json()
    assert (monitor["erased"]["reason"], "result" in monitor) == ("ticket 4711", False)
    assert (await site.call("DELETE", "/status/killed")).status_code == 204
    assert (await site.call("GET", "/status/killed")).json()["erased"] == monitor["erased"]
    async with linked(site.broker.url) as link:
        bucket = (await stored(link))["KV_operation_keys"]
    assert b"ticket 4711" in bucket
    assert not any(member in bucket for member in (b'"wrapped"', b'"pending"'))
