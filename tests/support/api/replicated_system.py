"""A system with two replicas of the API, and clients that wait and read while a test disturbs it."""

from __future__ import annotations

import asyncio
import itertools
import signal
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from random import Random
from typing import Any, Final, Self

import httpx

from tests.support.api import held_actions
from tests.support.api.stream_reader import Reader
from tests.support.system.invariants import Evidence, Promise, breaches, gather
from tests.support.system.load import RESOURCE, Load
from tests.support.system.services import System
from tests.support.system.wait import eventually

FIRST: Final = "api"
SECOND: Final = "api-2"
PATIENCE: Final = 30.0
"""Seconds, for steps that take a moment on an idle machine."""
END: Final = 5.0
"""Seconds in which a process with a broker ends after SIGTERM."""

_NUMBERS: Final = itertools.count(1_000_000)


@contextmanager
def fragile_system(folder: Path) -> Iterator[System]:
    """A broker, two replicas of the API, one projector, one runner."""
    source = Path(held_actions.__file__)
    (folder / source.name).write_bytes(source.read_bytes())
    (folder / held_actions.GATES).mkdir()
    (folder / held_actions.MARKS).touch()
    with ExitStack() as stack:
        system = System(folder, stack, source.stem, replicas=2)
        system.names = [FIRST, SECOND, "projector", "runner"]
        system.begin()
        yield system


def own_id() -> dict[str, str]:
    """Headers with a client's own operation id."""
    return {"Operation-Id": f"own-{uuid.uuid4()}"}


def repeatable() -> dict[str, str]:
    """Headers that make a request repeatable (OASIS Repeatable Requests 1.0)."""
    return {"Repeatability-Request-ID": str(uuid.uuid4()), "Repeatability-First-Sent": "Tue, 24 Nov 2026 08:00:00 GMT"}


class SystemClients:
    """Clients of a system.

    Args:
        system: must be ready.
        load: submits and polls.
        http: a client without a read timeout.
    """

    def __init__(self, system: System, load: Load, http: httpx.AsyncClient) -> None:
        self.system = system
        self.load = load
        self.http = http
        self._tasks: list[asyncio.Task[Any]] = []

    async def running(self, action: str, *, pause: float = 0.0) -> str:
        """Submit an operation, wait until it runs, and return its id."""
        operation_id = await self.load.submit(action, pause=pause)
        await self.load.reach(operation_id, "Running")
        return operation_id

    def open(self, *operation_ids: str) -> None:
        """Open the gates of operations."""
        for one in operation_ids:
            (self.system.folder / held_actions.GATES / one).touch()

    def marks(self, number: int) -> list[str]:
        """The operation ids of all calls of an action with this number."""
        lines = (self.system.folder / held_actions.MARKS).read_text(encoding="utf-8").splitlines()
        return [operation_id for text, operation_id in map(str.split, lines) if int(text) == number]

    def promise(self, action: str) -> Promise:
        """A new request."""
        return Promise(f"{RESOURCE}:{action}", {"number": next(_NUMBERS)})

    async def submit(self, api: str, promise: Promise, headers: dict[str, str]) -> httpx.Response:
        """Send a request once."""
        return await self.http.post(f"{api}/{promise.kind}", json=promise.input, headers=headers)

    async def cancel(self, api: str, operation_id: str) -> httpx.Response:
        """Send a cancel request once."""
        return await self.http.post(f"{api}/status/{operation_id}:cancel")

    async def status(self, api: str, operation_id: str, *, wait: int = 0) -> httpx.Response:
        """Request the status once."""
        headers = {"Prefer": f"wait={wait}"} if wait else {}
        return await self.http.get(f"{api}/status/{operation_id}", headers=headers)

    async def events(self, api: str, operation_id: str) -> list[str]:
        """The names of an operation's events so far."""
        response = await self.http.get(f"{api}/status/{operation_id}/events")
        assert response.status_code == 200, response.text
        return [event["type"].split(".")[2] for event in response.json()["value"]]

    async def reach_events(self, api: str, operation_id: str, names: list[str]) -> None:
        """Wait until an operation has exactly these events."""

        async def has_them() -> bool:
            return await self.events(api, operation_id) == names

        await eventually(has_them, within=PATIENCE, poll=0.05)

    async def hold(
        self, api: str, operation_ids: Sequence[str], wait: int, *, patience: float | None = None
    ) -> list[asyncio.Task[httpx.Response]]:
        """Send a waiting request for each operation, and return once the replica has read them all.

        Args:
            api: its base URL.
            operation_ids: of operations that have not ended.
            wait: seconds, for `Prefer: wait`.
            patience: seconds until the client gives up.
        """
        headers = {"Prefer": f"wait={wait}"}
        requests = [
            self.http.build_request("GET", f"{api}/status/{one}", headers=headers, timeout=patience)
            for one in operation_ids
        ]
        held = [await self._sent(request) for request in requests]
        # The replica handles requests in order: when it has responded to this one, it has read all earlier ones.
        assert (await self.status(api, operation_ids[0])).status_code == 200
        return held

    async def leave(self, api: str, promise: Promise, headers: dict[str, str]) -> asyncio.Task[httpx.Response]:
        """Send a submit, and return once the replica has read it, even if it can't respond yet."""
        request = self.http.build_request("POST", f"{api}/{promise.kind}", json=promise.input, headers=headers)
        request_task = await self._sent(request)
        assert (await self.http.get(f"{api}/healthz")).status_code == 200
        return request_task

    async def _sent(self, request: httpx.Request) -> asyncio.Task[httpx.Response]:
        sent = asyncio.Event()

        async def trace(name: str, _info: object) -> None:
            if name == "http11.send_request_body.complete":
                sent.set()

        request.extensions["trace"] = trace
        response_task = asyncio.create_task(self.http.send(request))
        self._tasks.append(response_task)
        async with asyncio.timeout(PATIENCE):
            await sent.wait()
        return response_task

    @asynccontextmanager
    async def reading(self, *readers: Reader) -> AsyncIterator[None]:
        """Let readers follow their operations to the terminal events."""
        following = [asyncio.create_task(reader.follow()) for reader in readers]
        self._tasks += following
        await eventually(lambda: all(reader.events for reader in readers), within=PATIENCE)
        yield
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*following)

    async def end(self, name: str, number: signal.Signals, *, within: float = END) -> None:
        """End a process by a signal, and check its end: after SIGTERM with status 0, and without errors in its log."""
        process = self.system.processes[name]
        process.send(number)
        status = await asyncio.to_thread(process.wait, within)
        assert status == (0 if number is signal.SIGTERM else -number), process.output
        assert " ERROR " not in process.output, process.output

    async def start(self, name: str) -> None:
        """Start a process again, and wait until it is ready."""
        self.system.start(name)
        await asyncio.to_thread(self.system.wait_ready, name)

    async def check(self, *readers: Reader) -> Evidence:
        """Check that no invariant is broken, that clients got only responses of the contract, and that each reader has
        all events of its operation, byte for byte, once and in order.
        """
        evidence = self.load.testify(await gather(self.system.nats))
        assert not (found := breaches(evidence) + self.load.problems), found
        histories = evidence.histories()
        for reader in readers:
            assert reader.positions == list(range(1, len(reader.events) + 1)), reader.positions
            stored = [message.payload for message in histories[reader.operation_id]]
            assert [event.data for event in reader.events] == stored, reader.events
        complaints = [one for one in self.system.complaints() if " ended by itself: " not in one]
        assert not complaints, complaints
        return evidence

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """End all operations and requests, so that no later test waits for them."""
        self.open(*self.load.promised)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for name, process in self.system.processes.items():
            if process.is_running:
                self.system.thaw(name)


@asynccontextmanager
async def system_clients(system: System) -> AsyncIterator[SystemClients]:
    """Start what does not run, and yield clients of the system."""
    system.revive()  # not in a thread: the kernel ends processes together with the thread that started them
    limits = httpx.Limits(max_connections=None)
    async with (
        Load(system.apis, Random(3)) as load,
        httpx.AsyncClient(trust_env=False, timeout=httpx.Timeout(10, read=None), limits=limits) as http,
        SystemClients(system, load, http) as clients,
    ):
        yield clients
