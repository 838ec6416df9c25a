"""What 0.7.0 brought beside 0.6.0: that shows nothing wrong, and breaks nothing."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from nats.js.errors import NotFoundError

from tests.support.journal.journals import linked
from tests.support.keys.kek_files import write_keks
from tests.support.system.invariants import breaches, gather
from tests.support.system.kill_actions import CHILDREN
from tests.support.system.processes import run
from tests.support.system.services import BROKER
from tests.support.system.versions import UpgradableSystem
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

BEFORE = "0.6.0"
"""The last release without steps, signals, clean-ups, children, payloads and confidential actions."""
SEALED = '''

@action("kill:sealed", lease=LEASE, max_attempts=50%s)
async def sealed(request: Work, ctx: ActionContext) -> Done:
    """Do nothing, in secret."""
    await ctx.progress(50, request.filler)
    return Done(request.number, ctx.attempt)
'''
"""An action that the earlier release has as one in the clear."""
NAK_A_MINUTE = b'-NAK {"delay": 60000000000}'
LARGE = 300_000
"""Characters of an input that is too large for an event."""


async def submit(
    http: httpx.AsyncClient, operation_id: str, pause: float, nap: float = 0.0, action: str = "steps", filler: str = ""
) -> None:
    """Submit an operation with steps, or another one."""
    headers = {"Operation-Id": operation_id}
    given = {"number": 1, "pause": pause, "nap": nap} | ({"filler": filler} if filler else {})
    response = await http.post(f"/kill:{action}", json=given, headers=headers)
    assert response.status_code == 202, response.text


async def status(http: httpx.AsyncClient, operation_id: str) -> dict[str, Any]:
    """What the API says."""
    response = await http.get(f"/status/{operation_id}")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def reaches(http: httpx.AsyncClient, operation_id: str, within: float = 20, **wanted: object) -> dict[str, Any]:
    """Wait until a status has these members."""

    async def probe() -> dict[str, Any] | None:
        found = await status(http, operation_id)
        return found if wanted.items() <= found.items() else None

    found: dict[str, Any] | None = await eventually(probe, within=within, poll=0.05)
    assert found is not None
    return found


def calls(system: UpgradableSystem, operation_id: str) -> list[str]:
    """The calls of the functions of its steps."""
    return (system.folder / "data" / f"steps-{operation_id}").read_text(encoding="utf-8").split()


async def _has_event(http: httpx.AsyncClient, operation_id: str, name: str) -> bool:
    events = (await http.get(f"/status/{operation_id}/events")).json()["value"]
    return any(one["type"].split(".")[2] == name for one in events)


async def test_steps_beside_a_release_without(tmp_path: Path) -> None:
    """API and projector of the earlier release show an operation with steps as it is; its runner hands one back that a
    runner of this version has left, until one is there again, and leaves a request whose input is a payload. Then each
    step has run once, and after the upgrade the view is right. At last everything goes back, on the stream of this
    version."""
    with ExitStack() as stack:
        system = UpgradableSystem(tmp_path, stack, before=BEFORE, replicas=1)
        system.begin()
        await asyncio.to_thread(system.provision)
        await asyncio.to_thread(system.stop, "runner")
        system.start_upgraded("runner")
        await asyncio.to_thread(system.wait_ready, "runner")
        async with httpx.AsyncClient(base_url=system.api, trust_env=False, timeout=10) as http:
            await submit(http, "parent", 0, action="family")
            await submit(http, "retried", 0)
            await reaches(http, "retried", status="Succeeded", attempt=2)
            assert calls(system, "retried") == ["1", "2"]
            events = (await http.get("/status/retried/events")).json()["value"]
            assert [one["type"].split(".")[2] for one in events][2:4] == ["step-succeeded", "step-succeeded"]

            await submit(http, "asleep", 0, nap=3600)
            await eventually(lambda: _has_event(http, "asleep", "waiting"), within=20)
            found = await status(http, "asleep")
            assert (found["status"], found["attempt"], found.get("waitingFor")) == ("Running", 1, None)

            for one in ("asked", "sorry"):
                await submit(http, one, 0, action="ask")
                await eventually(lambda one=one: _has_event(http, one, "waiting"), within=20)
                found = await status(http, one)
                assert (found["status"], found["attempt"], found.get("waitingFor")) == ("Running", 1, None)

            await eventually(lambda: _has_event(http, "parent", "waiting"), within=20)  # no API takes its children
            found = await status(http, "parent")
            assert (found["status"], found.get("waitingFor")) == ("Running", None)

            await submit(http, "left", 3600)
            await reaches(http, "left", status="Running", percentComplete=50)
            naks: list[bytes] = []

            async def note(message: Any) -> None:
                naks.append(message.data)

            async with linked(system.nats) as link:
                await link.nc.subscribe("$JS.ACK.OPERATIONS.runner_kill_steps.>", cb=note)
                await link.nc.flush()
                await asyncio.to_thread(system.kill, "runner")
                system.start_rolled_back("runner")
                await asyncio.to_thread(system.wait_ready, "runner")
                await eventually(lambda: NAK_A_MINUTE in naks, within=20)
                found = await status(http, "left")
                assert (found["status"], found["attempt"]) == ("Running", 1)
                assert (await http.post("/status/left:cancel")).status_code == 500

                await asyncio.to_thread(system.stop, "api")
                system.start_upgraded("api")
                await asyncio.to_thread(system.wait_ready, "api")
                naks.clear()
                await submit(http, "large", 0, filler="x" * LARGE)
                await eventually(lambda: NAK_A_MINUTE in naks, within=20)
                assert (await status(http, "large"))["status"] == "NotStarted"

            for name in ("projector", "runner", "api", BROKER):
                await asyncio.to_thread(system.kill if name == "runner" else system.stop, name)
                system.start_upgraded(name)
                await asyncio.to_thread(system.wait_ready, name)

            async def is_asked() -> bool:  # the broker has just been started
                return (await http.post("/status/left:cancel")).status_code == 200

            await eventually(is_asked, within=20, poll=0.2)
            assert (await status(http, "asleep"))["waitingFor"] == "Sleep"
            assert (await http.post("/status/asleep:cancel")).json()["status"] == "Canceled"
            assert (await status(http, "asked"))["waitingFor"] == "Signal"
            assert (await http.post("/status/asked:signal/answer", json=7)).status_code == 200
            assert (await reaches(http, "asked", within=90, status="Succeeded"))["result"] == {
                "number": 7,
                "attempt": 2,
            }
            assert (await http.post("/status/sorry:cancel")).json()["status"] == "Running"
            await reaches(http, "sorry", within=90, status="Canceled")
            assert (system.folder / "data" / "canceled-sorry").exists()
            await reaches(http, "left", within=90, status="Canceled")
            await reaches(http, "large", within=90, status="Succeeded")
            assert calls(system, "large") == ["1", "2"]
            await reaches(http, "retried", status="Succeeded", attempt=2)
            (group,) = (await reaches(http, "parent", within=90, status="Succeeded"))["children"]
            assert len(group["ids"]) == group["count"] == CHILDREN
            child = group["ids"][0]
            assert (await status(http, child))["parent"] == "parent"
            verified = await asyncio.to_thread(run, "verify", "--nats", system.nats, timeout=60)
            assert verified.returncode == 0, verified.stdout + verified.stderr

            rebuilt = await asyncio.to_thread(run, "rebuild", "--nats", system.nats, timeout=60)
            assert rebuilt.returncode == 0, rebuilt.stdout + rebuilt.stderr

            for name in (BROKER, "api", "runner", "projector"):
                await asyncio.to_thread(system.stop, name)
                system.start_rolled_back(name)
                await asyncio.to_thread(system.wait_ready, name)
            await reaches(http, "retried", status="Succeeded", attempt=2)
            for one in ("parent", child):
                await reaches(http, one, status="Succeeded")
            assert calls(system, "left") == ["1", "2"]
        evidence = await gather(system.nats)
        assert breaches(evidence) == []


async def submit_with_file(http: httpx.AsyncClient, operation_id: str) -> None:
    """Upload a file, and submit the action that reads it."""
    place = await http.post("/payloads", json={"name": "note.txt"}, headers={"Operation-Id": operation_id})
    assert place.status_code == 201, place.text
    stored = await http.put(place.json()["href"], content=b"hush")
    assert stored.status_code in {200, 201}, stored.text
    headers = {"Operation-Id": operation_id, "Operation-Upload": stored.json()["claim"]}
    response = await http.post("/kill:files", json={"number": 1}, headers=headers)
    assert response.status_code == 202, response.text


async def view_of(system: UpgradableSystem) -> list[bytes]:
    """All that the key-value view has."""
    async with linked(system.nats) as link:
        js = link.nc.jetstream()
        state = (await js.stream_info("KV_operations")).state
        found = []
        for sequence in range(max(state.first_seq, 1), state.last_seq + 1):
            with contextlib.suppress(NotFoundError):
                found.append((await js.get_msg("KV_operations", sequence)).data or b"")
        return found


async def test_files_and_seals_beside_a_release_without(tmp_path: Path) -> None:
    """A runner of the earlier release leaves an operation with uploads, and a confidential one, to a newer one, also
    if its own code says that the action is not confidential. Its projector passes over both, and has nothing in the
    clear. Its API can't read either. After the upgrade and a rebuild everything is there, and can be erased."""
    secret = "the canary of 0.6.0"
    with ExitStack() as stack:
        system = UpgradableSystem(tmp_path, stack, before=BEFORE, replicas=1)
        for folder, options in ((tmp_path, ", confidential=True, version=2"), (tmp_path / "before", "")):
            with (folder / "kill_actions.py").open("a", encoding="utf-8") as file:
                file.write(SEALED % options)
        system.keks = ("--kek-file", str(write_keks(tmp_path / "kek")))
        system.begin()
        await asyncio.to_thread(system.provision)
        for name in ("api", "runner"):
            await asyncio.to_thread(system.stop, name)
            system.start_upgraded(name)
            await asyncio.to_thread(system.wait_ready, name)
        await asyncio.to_thread(system.stop, "runner")  # it has announced a version that is confidential
        system.start_rolled_back("runner")
        await asyncio.to_thread(system.wait_ready, "runner")
        naks: list[str] = []

        async def note(message: Any) -> None:
            if message.data == NAK_A_MINUTE:
                naks.append(message.subject.split(".")[3])

        async with httpx.AsyncClient(base_url=system.api, trust_env=False, timeout=10) as http:
            async with linked(system.nats) as link:
                for action in ("files", "sealed"):
                    await link.nc.subscribe(f"$JS.ACK.OPERATIONS.runner_kill_{action}.>", cb=note)
                await link.nc.flush()
                await submit_with_file(http, "left-filed")
                await submit(http, "left-hidden", 0, action="sealed", filler=secret)
                await eventually(lambda: {*naks} == {"runner_kill_files", "runner_kill_sealed"}, within=20)
            for one in ("left-filed", "left-hidden"):
                assert (await http.post(f"/status/{one}:cancel")).json()["status"] == "Canceled"

            await asyncio.to_thread(system.stop, "runner")
            system.start_upgraded("runner")
            await asyncio.to_thread(system.wait_ready, "runner")
            await submit_with_file(http, "filed")
            await submit(http, "hidden", 0, action="sealed", filler=secret)
            found = await reaches(http, "filed", within=20, status="Succeeded")
            (loud,) = found["attachments"]
            assert (await http.get(loud["href"])).content == b"HUSH"
            assert (await reaches(http, "hidden", within=20, status="Succeeded"))["result"]["number"] == 1
            await submit(http, "plain", 0, action="quick")
            await eventually(lambda: _is_projected(system, b'"plain"'), within=20, poll=0.2)
            assert not [one for one in await view_of(system) if secret.encode() in one]

            await asyncio.to_thread(system.stop, "api")
            system.start_rolled_back("api")
            await asyncio.to_thread(system.wait_ready, "api")
            await reaches(http, "plain", status="Succeeded")
            for one in ("filed", "hidden"):
                refused = await http.get(f"/status/{one}")
                assert refused.status_code == 500, refused.text
                assert secret not in refused.text

            for name in ("projector", "api"):
                await asyncio.to_thread(system.stop, name)
                system.start_upgraded(name)
                await asyncio.to_thread(system.wait_ready, name)
            assert len((await reaches(http, "filed", status="Succeeded"))["attachments"]) == 1
            erased = await http.delete("/status/hidden")
            assert erased.status_code in {200, 204}, erased.text
            assert "result" not in await status(http, "hidden")
        rebuilt = await asyncio.to_thread(run, "rebuild", "--nats", system.nats, timeout=60)  # as CHANGELOG.md says
        assert rebuilt.returncode == 0, rebuilt.stdout + rebuilt.stderr
        verified = await asyncio.to_thread(run, "verify", "--nats", system.nats, timeout=60)
        assert verified.returncode == 0, verified.stdout + verified.stderr


async def _is_projected(system: UpgradableSystem, text: bytes) -> bool:
    return any(text in one for one in await view_of(system))
