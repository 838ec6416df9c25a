"""Quick, endless and stubborn actions for tests of processes, and a client for them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import httpx

MODULE: Final = "echoes"
POLL: Final = 0.05
ACTIONS: Final = '''\
"""Actions of a user, in the working directory."""
import asyncio
import time

import msgspec

from opstream import ActionContext, action


class Words(msgspec.Struct, forbid_unknown_fields=True):
    text: str


@action("echo:say")
async def say(request: Words, ctx: ActionContext) -> Words:
    """Give the words back."""
    return request


@action("echo:wait", lease=5)
async def wait(request: Words, ctx: ActionContext) -> Words:
    """Wait until stopped; the second attempt succeeds."""
    print(f"attempt {ctx.attempt}", flush=True)
    if ctx.attempt == 1:
        await asyncio.Event().wait()
    return request


@action("echo:nap")
async def nap(request: Words, ctx: ActionContext) -> Words:
    """Take longer than a stop without a drain may."""
    print("napping", flush=True)
    await asyncio.sleep(10)
    return request


@action("echo:block")
def block(request: Words, ctx: ActionContext) -> Words:
    """Hold a thread, whatever anybody says."""
    print("blocking", flush=True)
    time.sleep(60)
    return request
'''


def write_actions(folder: Path) -> None:
    """Write the module into a folder."""
    (folder / f"{MODULE}.py").write_text(ACTIONS, encoding="utf-8")


def submit(http: httpx.Client, api: str, action: str, text: str = "hello") -> str:
    """Submit `echo:{action}`; return the operation's id."""
    response = http.post(f"{api}/echo:{action}", json={"text": text})
    assert response.status_code == 202, response.text
    operation_id: str = response.json()["id"]
    return operation_id


def poll(http: httpx.Client, api: str, operation_id: str, timeout: float = 15.0) -> dict[str, Any]:
    """Poll until the operation has ended; return its status. Polls faster than `Retry-After` asks."""
    until = time.monotonic() + timeout
    while True:
        response = http.get(f"{api}/status/{operation_id}")
        assert response.status_code == 200, response.text
        monitor: dict[str, Any] = response.json()
        if monitor["status"] in {"Succeeded", "Failed", "Canceled"}:
            return monitor
        assert time.monotonic() < until, f"not terminal after {timeout:g} s: {monitor}"
        time.sleep(POLL)
