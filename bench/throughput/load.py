"""The load generator: HTTP clients in a process of their own."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import msgspec

from bench.harness import http_client

PATH: Final = "/bench/42:noop"
BODY: Final = b'{"text":"an input of about a hundred bytes, which is what many an action in the field gets to see"}'
POLL_PAUSE: Final = 0.1
"""Seconds between two polls of an unfinished operation, under load."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """The task."""

    port: int
    clients: int = 1
    operations: int
    is_alone: bool = False
    """One operation after the other, polled without a pause, each of them timed."""
    key: str = ""
    """An API key for each request; empty for none."""


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """The figures. Times in seconds."""

    operations: int
    seconds: float
    """From the first submit until every operation was seen as Succeeded."""
    submit_seconds: float
    """From the first submit to the last answer to one."""
    polls: int
    cpu: float
    """Of the load generator itself."""
    submits: list[float] = []
    """How long each submit took, if alone."""
    totals: list[float] = []
    """From each submit to its Succeeded, if alone."""


class _SubmitClient(http_client.HttpConnection):
    def __init__(self, port: int, key: str = "") -> None:
        super().__init__(port, key)
        self._submit = self.post(PATH, BODY)

    async def submit(self) -> str:
        """Submit the no-op; the operation's id."""
        return http_client.decode_monitor(await self.send(self._submit, http_client.ACCEPTED)).id


async def run(load: Load) -> LoadResult:
    """Run a load."""
    clients = [await _SubmitClient.open(load.port, load.key) for _ in range(load.clients)]
    cpu = time.process_time()
    try:
        result = await (_alone(load, clients[0]) if load.is_alone else _together(load, clients))
    finally:
        for client in clients:
            client.close()
    return msgspec.structs.replace(result, cpu=time.process_time() - cpu)


async def _together(load: Load, clients: list[_SubmitClient]) -> LoadResult:
    """Each client submits its share, one request after the other, and then polls what it submitted."""
    left = iter(range(load.operations))
    polls = 0
    submitted = 0.0
    began = time.perf_counter()

    async def work(client: _SubmitClient) -> None:
        nonlocal polls, submitted
        mine = [await client.submit() for _ in left]
        submitted = time.perf_counter()
        for operation_id in mine:
            polls += 1
            while not await client.has_succeeded(operation_id):
                await asyncio.sleep(POLL_PAUSE)
                polls += 1

    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(work(client))
    seconds = time.perf_counter() - began
    return LoadResult(
        operations=load.operations, seconds=seconds, submit_seconds=submitted - began, polls=polls, cpu=0.0
    )


async def _alone(load: Load, client: _SubmitClient) -> LoadResult:
    submits, totals = [], []
    polls = 0
    for _ in range(load.operations):
        began = time.perf_counter()
        operation_id = await client.submit()
        submits.append(time.perf_counter() - began)
        polls += 1
        while not await client.has_succeeded(operation_id):
            polls += 1
        totals.append(time.perf_counter() - began)
    return LoadResult(
        operations=load.operations,
        seconds=sum(totals),
        submit_seconds=sum(submits),
        polls=polls,
        cpu=0.0,
        submits=submits,
        totals=totals,
    )


if __name__ == "__main__":
    http_client.run_task(run, Load)
