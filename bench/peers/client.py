"""The client: one aiohttp session that submits and reads, with the same rules for each peer.

It polls at once. One at a time it polls again after 1 ms; with many clients after 5 ms, then after twice the pause
before, up to 100 ms, since 64 clients that poll without a rest would measure the polls. A peer whose GET can wait
for the result answers late instead; the rules are the same. A wrong result ends the process with status 1.

It prints a line when it is ready, and begins with the next line of its input, so that its own start is not measured.
"""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final

import aiohttp
import msgspec
import uvloop

from bench.peers.probe import Mode, Probe, ProbeResult, Route

ACCEPTED: Final = 202
OK: Final = 200
_FIRST_PAUSE: Final = 0.005
_LAST_PAUSE: Final = 0.1
_PAUSE_ALONE: Final = 0.001
_PAUSE_UNTIL_READY: Final = 0.1
_MANY_CONNECTIONS: Final = 0
"""aiohttp's word for no limit."""


class _ProbeFailed(Exception):
    """A response was not the expected one."""


class _WrongResult(_ProbeFailed):
    """An operation has the result of another one."""


class _Peer:
    """The two requests of a peer."""

    def __init__(self, probe: Probe, session: aiohttp.ClientSession) -> None:
        self.polls = 0
        self._route: Route = probe.route
        self._session = session
        self._patience = probe.patience
        alone = probe.mode is Mode.ALONE
        self._first_pause, self._last_pause = (_PAUSE_ALONE,) * 2 if alone else (_FIRST_PAUSE, _LAST_PAUSE)

    async def submit(self, number: int) -> str:
        """POST an operation; return its id."""
        route = self._route
        headers = {"Content-Type": "application/json"}
        if route.has_key:
            headers["Idempotency-Key"] = uuid.uuid4().hex
        body = msgspec.json.encode({"n": number})
        async with self._session.post(route.url + route.submit, data=body, headers=headers) as response:
            answer = await response.read()
            if response.status != ACCEPTED:
                raise _ProbeFailed(f"POST answered {response.status}: {_text(answer)}")
        return str(msgspec.json.decode(answer)[route.id_member])

    async def result(self, operation_id: str, number: int) -> None:
        """GET until the result is there, and check it."""
        url = self._route.url + self._route.read.format(id=operation_id)
        pause, until = self._first_pause, time.perf_counter() + self._patience
        while True:
            self.polls += 1
            async with self._session.get(url, headers=self._route.read_headers) as response:
                status, answer = response.status, await response.read()
            if self._is_there(status, answer, number):
                return
            if time.perf_counter() > until:
                raise _ProbeFailed(
                    f"operation {operation_id} had no result after {self._patience:g} s: {_text(answer)}"
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, self._last_pause)

    def _is_there(self, status: int, answer: bytes, number: int) -> bool:
        if status == self._route.pending:
            return False
        if status != OK:
            raise _ProbeFailed(f"GET answered {status}: {_text(answer)}")
        found: Any = msgspec.json.decode(answer)
        if not self._route.is_bare:
            if found["status"] in {"Failed", "Canceled"}:
                raise _ProbeFailed(f"the operation ended {found['status']}: {_text(answer)}")
            if found["status"] != "Succeeded":
                return False
            found = found["result"]
        if found != {"n": number}:
            raise _WrongResult(f"the result of {number} is wrong: {_text(answer)}")
        return True


async def run(probe: Probe, begin: Callable[[], Awaitable[None]]) -> ProbeResult:
    """Run a load.

    Args:
        probe: which.
        begin: called when everything is prepared; returns when the load may begin.
    """
    connector = aiohttp.TCPConnector(limit=_MANY_CONNECTIONS)
    timeout = aiohttp.ClientTimeout(total=probe.patience)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        peer = _Peer(probe, session)
        await begin()
        cpu = time.process_time()
        match probe.mode:
            case Mode.FIRST:
                result = await _first(probe, peer)
            case Mode.BURST:
                result = await _burst(probe, peer)
            case _:
                result = await _closed(probe, peer)
        return msgspec.structs.replace(result, polls=peer.polls, cpu=time.process_time() - cpu)


async def _first(probe: Probe, peer: _Peer) -> ProbeResult:
    began = time.perf_counter()
    while True:
        try:
            await peer.result(await peer.submit(0), 0)
            return _result(1, time.perf_counter() - began, [])
        except _WrongResult:
            raise
        except (aiohttp.ClientError, _ProbeFailed):
            if time.perf_counter() - began > probe.patience:
                raise
            await asyncio.sleep(_PAUSE_UNTIL_READY)


async def _burst(probe: Probe, peer: _Peer) -> ProbeResult:
    ids: list[str] = [""] * probe.operations
    submits: list[float] = []
    left = iter(range(probe.operations))
    unread = iter(range(probe.operations))

    async def submit() -> None:
        for number in left:
            sent = time.perf_counter()
            ids[number] = await peer.submit(number)
            submits.append(time.perf_counter() - sent)

    async def read() -> None:
        for number in unread:
            await peer.result(ids[number], number)

    began = time.perf_counter()
    await _all(probe.clients, submit)
    submitted = time.perf_counter()
    await _all(probe.clients, read)
    result = _result(probe.operations, time.perf_counter() - began, submits)
    return msgspec.structs.replace(result, submit_seconds=submitted - began)


async def _closed(probe: Probe, peer: _Peer) -> ProbeResult:
    submits: list[float] = []
    totals: list[float] = []
    left = iter(range(probe.operations))

    async def work() -> None:
        for number in left:
            sent = time.perf_counter()
            operation_id = await peer.submit(number)
            submits.append(time.perf_counter() - sent)
            await peer.result(operation_id, number)
            totals.append(time.perf_counter() - sent)

    began = time.perf_counter()
    await _all(probe.clients, work)
    result = _result(probe.operations, time.perf_counter() - began, submits)
    return msgspec.structs.replace(result, totals=totals)


async def _all(clients: int, work: Callable[[], Awaitable[None]]) -> None:
    async def one() -> None:
        await work()

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(one())


def _result(operations: int, seconds: float, submits: list[float]) -> ProbeResult:
    return ProbeResult(operations=operations, seconds=seconds, submits=submits, polls=0, cpu=0.0)


def _text(answer: bytes) -> str:
    return answer[:500].decode(errors="replace")


async def _wait_for_parent() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)


def main() -> None:
    """Read the task from the command line, and write the result to stdout."""
    probe = msgspec.json.decode(sys.argv[1], type=Probe)
    try:
        result = uvloop.run(run(probe, _wait_for_parent))
    except* (_ProbeFailed, aiohttp.ClientError, TimeoutError) as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        sys.exit(f"{type(first).__name__.lstrip('_')}: {first}")
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    main()
