"""Bugs that chaos runs have found, each as a minimal test, with its seed."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys

import pytest
from nats.js.errors import NotFoundError

from opstream_journal.jetstream.kv import HOLDS_STREAM, KeyValueBucket
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing, streams
from opstream_schemas import subjects
from tests.support.broker.server import Broker
from tests.support.journal.journals import linked
from tests.support.system.processes import environment
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e


async def test_a_removed_lock_stays_removed() -> None:
    """A removed key does not come back when the broker is killed later (seed 5: the disk had lost an expired marker,
    and with it the removal)."""
    with Broker() as broker:
        async with linked(broker.url) as link:
            (config,) = [one for one in streams(Sizing()) if one.name == HOLDS_STREAM]
            jetstream = link.nc.jetstream()
            await jetstream.add_stream(config)
            cells = KeyValueBucket(link, random.uniform)
            await cells.start()
            # Another key in the same block keeps the broker from dropping the whole block.
            await cells.put("r.rate", b"{}")
            await cells.put("h.one", b"{}")
            assert await cells.remove("h.one", (await cells.get("h.one")).revision)

            async def is_gone() -> bool:
                """Return True if neither a value nor a marker is left."""
                with contextlib.suppress(NotFoundError):
                    await jetstream.get_last_msg(HOLDS_STREAM, subjects.bucket_subject(subjects.HOLDS_BUCKET, "h.one"))
                    return False
                return True

            await eventually(is_gone, within=10)
        broker.kill()
        broker.start()
        async with linked(broker.url) as link:
            cells = KeyValueBucket(link, random.uniform)
            assert [(await cells.get(key)).data for key in ("h.one", "r.rate")] == [b"", b"{}"]


async def test_earlier_values_of_a_removed_key_stay_removed() -> None:
    """After a kill of the broker, neither an earlier owner comes back, nor an operation that entered the queue more
    than once (seeds 921 and 934)."""
    with Broker() as broker:
        async with linked(broker.url) as link:
            await provision(link, Sizing())
            cells = KeyValueBucket(link, random.uniform)
            await cells.start()
            await cells.put("r.rate", b"{}")
            for value in (b"1", b"2", b"3"):
                assert await cells.replace("h.one", value, (await cells.get("h.one")).revision)
                await cells.put("w.one.1.op-1", value)
            assert await cells.read_all(">") == {"r.rate": b"{}", "h.one": b"3", "w.one.1.op-1": b"3"}
            for key in ("h.one", "w.one.1.op-1"):
                assert await cells.remove(key, (await cells.get(key)).revision)
        broker.kill()
        broker.start()
        async with linked(broker.url) as link:
            cells = KeyValueBucket(link, random.uniform)
            await cells.start()
            assert await cells.read_all(">") == {"r.rate": b"{}"}


def test_a_child_whose_runner_died_at_once() -> None:
    """It ends without output (seed 2: a traceback in the runner's log)."""
    ours, theirs = socket.socketpair()
    lifeline, held = os.pipe()
    with theirs:
        ours.close()
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "opstream_runner.handler.child_main", str(theirs.fileno()), str(lifeline)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(theirs.fileno(), lifeline),
            env=environment(),
            start_new_session=True,
        )
    try:
        output, _ = child.communicate(timeout=20)
    finally:
        child.kill()
        os.close(lifeline)
        os.close(held)
    assert output == b""
