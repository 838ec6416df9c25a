"""Beside a newer version of opstream, which records events of a type that this one does not know."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import ExitStack
from pathlib import Path

import httpx
import msgspec
import pytest
from nats.js.api import StreamConfig

from opstream_journal import Connection, ExpectedVersion
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_schemas import subjects
from opstream_schemas.events import EventData, Progressed, Succeeded
from tests.support.journal.journals import folded, following, linked, opened
from tests.support.schemas.histories import FromTheFuture
from tests.support.system.kill_actions import write_module
from tests.support.system.processes import run
from tests.support.system.services import System
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

STREAM = subjects.OPERATIONS_STREAM
ID = "newer"


async def provision_as_newer(link: Connection) -> None:
    """Do what `opstream provision --update` of a version does that has one more type of event."""
    config = await admin.stream_config(link, STREAM)
    assert isinstance(config, StreamConfig)
    newer = subjects.event_type_subject(FromTheFuture.name)
    await admin.update_stream(link, STREAM, {"subjects": [*(config.subjects or ()), newer]})


async def record(link: Connection, *datas: EventData) -> None:
    """Record events of the operation, as a runner of the newer version."""
    journal = await opened(link)
    for data in datas:
        operation = folded(None, *await journal.events(ID))
        expected = ExpectedVersion(operation.stream_sequence)
        await journal.append(operation.kind, following(operation, data), expected, budget=10)


async def test_what_is_newer_is_left_or_skipped_and_seen(tmp_path: Path) -> None:
    """Services start on its stream. An operation with such an event has the right status all the time, its events are
    shown whole, and no runner or API of this version decides anything about it. What it can't know it says."""
    with ExitStack() as stack:
        system = System(tmp_path, stack, write_module(tmp_path))
        system.begin()
        async with linked(system.nats) as link, httpx.AsyncClient(base_url=system.api, trust_env=False) as http:
            await provision_as_newer(link)
            submitted = await http.post("/kill:held", json={"number": 1}, headers={"Operation-Id": ID})
            assert submitted.status_code == 202, submitted.text

            async def status(operation_id: str = ID) -> str:
                found: str = (await http.get(f"/status/{operation_id}")).json()["status"]
                return found

            await eventually(lambda: _is(status(), "Running"), within=10)
            await record(link, FromTheFuture())
            gives_up = f"operation {ID} can't be folded by this version"
            await asyncio.to_thread(system.processes["runner"].wait_for, gives_up, 10)
            for name in system.names:  # each starts on the newer version's stream
                await asyncio.to_thread(system.kill, name)
                system.start(name)
            await asyncio.to_thread(system.wait_ready, *system.names)

            assert await status() == "Running"
            events = (await http.get(f"/status/{ID}/events")).json()["value"]
            assert [one["type"].split(".")[2] for one in events] == ["requested", "started", FromTheFuture.name]
            refused = await http.post(f"/status/{ID}:cancel")
            assert (refused.status_code, refused.json()["error"]["code"]) == (500, "InternalError")
            await asyncio.to_thread(system.processes["api"].wait_for, "1 event of unknown type; update opstream", 10)
            again = await http.post("/kill:quick", json={"number": 2}, headers={"Operation-Id": "another"})
            assert again.status_code == 202
            await eventually(lambda: _is(status("another"), "Succeeded"), within=10)
            for command, said in (
                (("replay", "--nats", system.nats), FromTheFuture.type),
                (("audit", ID, "--nats", system.nats), "1 of a type that is not known here"),
                (("verify", "--nats", system.nats), "events have types that this version does not know"),
                (("verify", "--chain", "--nats", system.nats), ""),
                (("export", str(tmp_path / "events.parquet"), "--nats", system.nats), ""),
            ):
                done = await asyncio.to_thread(run, *command, timeout=60)
                assert (done.returncode, said in done.stdout + done.stderr) == (0, True), (command, done)

            await record(link, Progressed(percent=50.0), Succeeded(result=msgspec.Raw(b"7")))
            await eventually(lambda: _is(status(), "Succeeded"), within=10)
            ended = (await http.get(f"/status/{ID}")).json()
            assert (ended["result"], ended["attempt"]) == (7, 1)


async def _is(status: Awaitable[str], wanted: str) -> bool:
    return await status == wanted
