"""The machinery of the comparison with peers, on a peer of the test's own: it is started, loaded, weighed and ended."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.harness.process_usage import BenchFailed
from bench.harness.slow_disk import check_tracer, slowed
from bench.peers import benchmark, catalogue, process_tree
from bench.peers.installation import Installation
from bench.peers.probe import MEASURED, Mode, Route
from bench.peers.running_peer import HOST, RunningPeer
from opstream.terminal.console import CommandError
from tests.support.system.processes import Watch

pytestmark = pytest.mark.e2e

PEER = """
import sys
from aiohttp import web
kept, wrong = {}, int(sys.argv[2])
async def submit(request):
    kept[str(len(kept))] = await request.json()
    return web.json_response({"id": str(len(kept) - 1)}, status=202)
async def read(request):
    result = kept[request.match_info["id"]]
    if not result.setdefault("asked", False):
        result["asked"] = True
        return web.json_response({"status": "Running"})
    return web.json_response({"status": "Succeeded", "result": {"n": result["n"] + (result["n"] == wrong)}})
app = web.Application()
app.add_routes([web.post("/operations", submit), web.get("/operations/{id}", read)])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
"""
"""Keeps what it gets; the first GET of an operation comes too early; the result of one number may be wrong."""
NEVER = -1
PLAN = benchmark.PeersPlan(peers=("made-up",), rounds=1, operations=40, samples=5, clients=8, fsync_us=0)


def make_up(monkeypatch: pytest.MonkeyPatch, *, wrong: int) -> list[RunningPeer]:
    """Put a peer into the catalogue; return where its processes will be."""
    started: list[RunningPeer] = []

    def start(running: RunningPeer) -> Route:
        started.append(running)
        (port,) = running.free_ports(1)
        running.start("server", [sys.executable, "-c", PEER, str(port), str(wrong)], port=port)
        return Route(url=f"http://{HOST}:{port}", submit="/operations", read="/operations/{id}")

    monkeypatch.setattr(benchmark, "_REST", 0)
    monkeypatch.setattr(benchmark, "_TAIL_OF_WORK", 0)
    monkeypatch.setitem(catalogue.PEERS, "made-up", catalogue.Peer(start, (), "made up"))
    return started


def test_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each mode has its figures, the too early GETs are counted, and nothing is left running."""
    started = make_up(monkeypatch, wrong=NEVER)
    (found,) = benchmark.measure_peers(PLAN, lambda _: None).peers
    assert found.failures == []
    assert list(found.runs) == list(MEASURED)
    assert [run.polls for runs in found.runs.values() for run in runs] == [2.0, 2.0, 2.0]
    (burst,), (closed,) = found.runs[Mode.BURST], found.runs[Mode.CLOSED]
    assert burst.submit_rate > burst.rate > 0
    assert closed.total_p50 > closed.submit_p50 > 0
    assert list(burst.cpu) == ["server"]
    assert found.started[0]["server"] > 0
    assert not started[0].folder.exists()
    assert started[0].memory() == {}


def test_a_wrong_result_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that returns another result than it should has no figures for it, and the report names the operation."""
    make_up(monkeypatch, wrong=0)
    (found,) = benchmark.measure_peers(PLAN, lambda _: None).peers
    assert list(found.runs) == []
    assert len(found.failures) == 1
    assert "the result of 0 is wrong" in found.failures[0]


def test_a_peer_that_ends_is_a_failure(tmp_path: Path) -> None:
    """A process that ends instead of listening is reported with its last words, and ended with the others."""
    with RunningPeer(tmp_path, Installation(tmp_path), clients=1, fsync_us=0) as running:
        (port,) = running.free_ports(1)
        with pytest.raises(BenchFailed, match=r"(?s)server ended with status 3:.*no license"):
            running.start("server", [sys.executable, "-c", "print('no license'); exit(3)"], port=port)


def test_ctrl_c_ends_everything(tmp_path: Path) -> None:
    """An interrupted benchmark ends its processes, and what they started, even if that ignores SIGTERM."""
    server = (
        "import os, signal, socket, sys\n"
        "if os.fork(): signal.pause()\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "signal.pause()\n"
    )
    running = RunningPeer(tmp_path, Installation(tmp_path), clients=1, fsync_us=0)
    with contextlib.suppress(KeyboardInterrupt), running:
        (port,) = running.free_ports(1)
        running.start("server", [sys.executable, "-c", server, str(port)], port=port)
        assert set(running.memory()) == {"server", "server/python"}
        (root,) = [process.pid for process in running._processes.values()]
        watch = Watch(process_tree.tree(process_tree.all_times(), root))
        raise KeyboardInterrupt
    assert watch.left_after(10) == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed, so no fsync can be delayed")
def test_a_slow_disk_delays_the_server_itself(tmp_path: Path) -> None:
    """A sync takes the delay longer, and SIGKILL for the process that was started ends the server."""
    try:
        check_tracer(1)
    except CommandError as error:
        pytest.skip(error.message)
    script = (
        "import os, sys, time\n"
        "file = open('synced', 'w')\n"
        "began = time.perf_counter(); os.fsync(file.fileno())\n"
        "print(os.getpid(), time.perf_counter() - began, flush=True)\n"
        "sys.stdin.read()\n"
    )
    pipe = subprocess.PIPE
    command = slowed([sys.executable, "-c", script], 150_000)
    with subprocess.Popen(command, cwd=tmp_path, stdin=pipe, stdout=pipe, text=True) as server:
        assert server.stdout is not None
        pid, seconds = server.stdout.readline().split()
        assert int(pid) == server.pid
        assert float(seconds) >= 0.15
        server.kill()
        assert server.wait(10) == -signal.SIGKILL
