"""The AsyncAPI document of a running system: valid by the official parser, and true of every message in the journal.

`@asyncapi/parser` runs in Node (`asyncapi/check.js`); npm installs it from `asyncapi/package-lock.json`, which has the
hash of every package.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import pytest

from opstream_journal import announce_action, connect
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.events import EVENT_DATA, decode_event
from opstream_schemas.integrity.archive_subjects import ARCHIVE_SOURCE_HEADER, parse_archive_origin
from opstream_schemas.subjects import ARCHIVE_STREAM, OPERATIONS_STREAM
from tests.support.events.event_actions import write_module
from tests.support.schemas.asyncapi import awkward_actions, channels_of, message, validator
from tests.support.schemas.cloudevents import check_round_trip, check_rules, check_same, read
from tests.support.system import npm
from tests.support.system.processes import run
from tests.support.system.services import System
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

SOURCES: Final = Path(__file__).parent / "asyncapi"
ACTIONS: Final = (
    "book.upload-finish",
    "book.upload-start",
    "crate.drop",
    "crate.fill",
    "crate.guard",
    "crate.lift",
    "crate.pack",
)
ACCEPTED: Final = [{"severity": 2, "code": "asyncapi-latest-version", "at": "asyncapi"}]
"""A piece of information, neither error nor warning: that there is an AsyncAPI 3.1, which fewer tools read."""
ALWAYS: Final = [*(data.name for data in EVENT_DATA), *(f"archive.{data.name}" for data in EVENT_DATA)]
"""Channels that hold whatever there is."""
CRATE: Final = {
    "label": "Apples",
    "size": [3, 4],
    "packed": "2026-11-24T08:00:00+01:00",
    "inner": [{"label": "Pears"}],
}

Told = dict[str, Any]


class Stored(msgspec.Struct, frozen=True):
    """A message of the journal."""

    subject: str
    headers: dict[str, str]
    data: bytes


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that serves actions of the bookshelf, and some that leave every type of event."""
    folder = tmp_path_factory.mktemp("asyncapi")
    with ExitStack() as stack:
        system = System(folder, stack, f"bookshelf.actions,{write_module(folder)}")
        system.begin()
        yield system


@pytest.fixture(scope="module")
def journal(system: System) -> list[Stored]:
    """All messages of the stream, after operations with each outcome have ended."""

    async def live() -> list[Stored]:
        async with httpx.AsyncClient(base_url=system.api, trust_env=False, timeout=20) as http:
            await asyncio.gather(*(_finish(http, name) for name in ("fill", "drop", "lift", "pack")), _cancel(http))
        return await _messages(system, OPERATIONS_STREAM)

    return asyncio.run(live())


@pytest.fixture(scope="module")
def document(system: System) -> Told:
    """What the service serves."""
    answer = httpx.get(f"{system.api}/asyncapi.json", trust_env=False)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    found: Told = answer.json()
    return found


@pytest.fixture(scope="session")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the parser."""
    return npm.install(SOURCES, tmp_path_factory.mktemp("scripts"))


def parse(scripts: Path, *files: Path) -> list[Told]:
    """What the official parser says of documents, one after the other."""
    parsed = subprocess.run(
        ["node", "check.js", *files], cwd=scripts, capture_output=True, text=True, check=False, timeout=60
    )
    assert parsed.returncode == 0, parsed.stderr
    return [msgspec.json.decode(line) for line in parsed.stdout.splitlines()]


def check_accepted(told: Told) -> None:
    """Neither errors nor warnings, and each operation sends a message that the parser knows all about."""
    diagnostics = [{key: one[key] for key in ("severity", "code", "at")} for one in told["diagnostics"]]
    assert diagnostics == ACCEPTED, told["diagnostics"]
    assert len(told["operations"]) == len(told["channels"])
    for operation in told["operations"]:
        assert (operation["action"], operation["bindings"]) == ("send", [["nats", "0.1.0"]])
        (sent,) = operation["messages"]
        assert sent["contentType"] == "application/cloudevents+json"
        assert sent["correlationId"] == "$message.payload#/subject"
        assert sent["headers"]["required"] == ["Nats-Msg-Id", "Content-Type"]


def test_what_opstream_writes_is_valid(scripts: Path, tmp_path: Path) -> None:
    """The document of `opstream schemas`: a channel for each event type, and one in the archive."""
    assert run("schemas", str(tmp_path)).returncode == 0
    (told,) = parse(scripts, tmp_path / "asyncapi.json")
    check_accepted(told)
    assert [channel["id"] for channel in told["channels"]] == ALWAYS


def test_what_the_service_serves_is_valid(system: System, document: Told, scripts: Path, tmp_path: Path) -> None:
    """With the actions of runners, and then with all that can be awkward about an action's schemas."""
    asyncio.run(_announce(system, awkward_actions()))
    (tmp_path / "usual.json").write_bytes(msgspec.json.encode(document))
    (tmp_path / "awkward.json").write_bytes(httpx.get(f"{system.api}/asyncapi.json", trust_env=False).content)
    usual, awkward = parse(scripts, tmp_path / "usual.json", tmp_path / "awkward.json")
    typed = [f"{name}.{event}" for name in ACTIONS for event in ("requested", "succeeded")]
    assert [channel["id"] for channel in usual["channels"]] == [*ALWAYS, *typed]
    check_accepted(usual)
    assert len(awkward["channels"]) == len(usual["channels"]) + 2 * len(awkward_actions())
    check_accepted(awkward)


def test_every_message_of_the_journal_is_described(document: Told, journal: list[Stored]) -> None:
    """By the channel of its event type, and by its action's own: subject, headers and payload. All types occur, and
    what else the stream holds is on no channel."""
    seen = set()
    for stored in journal:
        channels = channels_of(document, stored.subject)
        if not stored.subject.startswith("operations."):
            assert channels == []
            continue
        _, _, resource, action, event = stored.subject.split(".")
        own = [f"{resource}.{action}.{event}"] if event in ("requested", "succeeded") else []
        assert channels == [event, *own]
        for channel in channels:
            described = message(document, channel)
            validator(document, described["headers"]).validate(stored.headers)
            validator(document, described["payload"]).validate(msgspec.json.decode(stored.data))
        seen |= set(channels)
    assert {data.name for data in EVENT_DATA} <= seen
    assert "crate.fill.succeeded" in seen


def test_every_message_of_the_archive_is_described(system: System, document: Told, journal: list[Stored]) -> None:
    """By its channel of the archive: subject, headers, which say where it comes from, and the same payload."""
    events = {stored.data: stored for stored in journal if stored.subject.startswith("operations.")}
    made = run("provision", "--nats", system.nats, "--archive", cwd=system.folder)
    assert made.returncode == 0, made.stderr
    copies = asyncio.run(_messages(system, ARCHIVE_STREAM, len(events)))
    assert len(copies) == len(events)
    for copy in copies:
        (channel,) = channels_of(document, copy.subject)
        assert channel == f"archive.{copy.subject.rpartition('.')[2]}"
        described = message(document, channel)
        validator(document, described["headers"]).validate(copy.headers)
        validator(document, described["payload"]).validate(msgspec.json.decode(copy.data))
        assert ARCHIVE_SOURCE_HEADER in described["headers"]["properties"]
        assert parse_archive_origin(copy.headers[ARCHIVE_SOURCE_HEADER]).subject == events[copy.data].subject


def test_every_message_of_the_journal_is_a_cloudevent(journal: list[Stored]) -> None:
    """By the official SDK and the specification; source and id name one event, and the id is also the message's."""
    events = [stored for stored in journal if stored.subject.startswith("operations.")]
    known = set()
    for stored in events:
        event = decode_event(stored.data, 1)
        check_same(read(stored.data), event)
        check_round_trip(stored.data)
        check_rules(stored.data)
        assert stored.headers["Nats-Msg-Id"] == event.id
        assert stored.headers["Content-Type"] == "application/cloudevents+json"
        known.add((event.source, event.id))
    assert len(known) == len(events) >= 14


async def _announce(system: System, specs: list[ActionSpec]) -> None:
    link = await connect([system.nats], "test", connect_timeout=10)
    try:
        for spec in specs:
            await announce_action(link, spec)
    finally:
        await link.close()


async def _messages(system: System, name: str, at_least: int = 1) -> list[Stored]:
    """All messages of a stream, once it has so many."""
    link = await connect([system.nats], "test", connect_timeout=10)
    try:
        stream = link.nc.jetstream()

        async def last() -> int:
            return int((await stream.stream_info(name)).state.last_seq)

        async def is_there() -> bool:
            return await last() >= at_least

        await eventually(is_there, within=15)
        found = [await stream.get_msg(name, seq=number) for number in range(1, await last() + 1)]
    finally:
        await link.close()
    return [Stored(str(one.subject), dict(one.headers or {}), one.data or b"") for one in found]


async def _finish(http: httpx.AsyncClient, name: str) -> None:
    submitted = await http.post(f"/crate/1:{name}", json=CRATE)
    await _ended(http, submitted.json()["id"])


async def _cancel(http: httpx.AsyncClient) -> None:
    operation_id = (await http.post("/crate/2:guard", json=CRATE)).json()["id"]

    async def is_running() -> bool:
        return bool((await http.get(f"/status/{operation_id}")).json()["status"] == "Running")

    await eventually(is_running)
    assert (await http.post(f"/status/{operation_id}:signal/weather", json="rain")).status_code == 200
    assert (await http.post(f"/status/{operation_id}:cancel", json={"reason": "rain"})).status_code == 200
    await _ended(http, operation_id)


async def _ended(http: httpx.AsyncClient, operation_id: str) -> None:
    monitor = (await http.get(f"/status/{operation_id}", headers={"Prefer": "wait=15"})).json()
    assert monitor["status"] in {"Succeeded", "Failed", "Canceled"}, monitor
