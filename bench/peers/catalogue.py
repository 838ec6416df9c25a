"""The peers: how each is started, and how it is asked. To change how a peer runs, change its function here."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from bench.harness.process_usage import BenchFailed
from bench.peers.installation import CELERY, DBOS, POSTGRES, RESTATE, SAQ, STRACE
from bench.peers.probe import Route
from bench.peers.running_peer import HOST, RunningPeer

_ACTIONS: Final = "bench.peers.apps.opstream_noop"
_STEPS: Final = "bench.peers.apps.opstream_steps"
_UVICORN: Final = ("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning")
_EVERY_SECOND: Final = "everysec"
_ALWAYS: Final = "always"
_REGISTER_TIMEOUT: Final = 60.0


class Peer(msgspec.Struct, frozen=True):
    """One peer."""

    start: Callable[[RunningPeer], Route]
    """Starts its processes; returns how to ask it."""
    needs: tuple[str, ...]
    """Of `installation`."""
    about: str


def _opstream(running: RunningPeer, actions: str = _ACTIONS) -> Route:
    """Each service a process of its own, as in production."""
    nats_port, port, *health = map(str, running.free_ports(5))
    nats = ("--nats", f"nats://{HOST}:{nats_port}")
    data = str(running.data_folder("journal"))
    running.start_opstream("broker", "--nats-port", nats_port, "--data-dir", data, port=int(nats_port), is_server=True)
    running.start_opstream("provision", *nats)
    running.finish("provision")
    running.start_opstream("projector", *nats, "--health-port", health[0])
    concurrency = _slots(running)
    running.start_opstream(
        "runner", *nats, "--health-port", health[1], "--actions", actions, "--concurrency", concurrency
    )
    running.start_opstream("webhooks", *nats, "--health-port", health[2])
    running.start_opstream("api", *nats, "--port", port, port=int(port))
    return _opstream_route(int(port))


def _opstream_up(running: RunningPeer, module: str = _ACTIONS) -> Route:
    """`opstream up`, with its defaults."""
    nats_port, port = running.free_ports(2)
    data = str(running.data_folder("journal"))
    ports = ("--port", str(port), "--nats-port", str(nats_port))
    actions = ("--actions", module, "--concurrency", _slots(running))
    running.start_opstream("up", *ports, "--data-dir", data, *actions, port=port, is_server=True)
    return _opstream_route(port)


def _slots(running: RunningPeer) -> str:
    """As many operations begin to be stored as clients have in flight, while as many run (docs/performance.md)."""
    return str(2 * running.clients)


def _waiting(route: Route) -> Route:
    """The GET waits for the end, as that of Restate does."""
    return msgspec.structs.replace(route, read_headers={"Prefer": "wait=30"})


def _opstream_route(port: int) -> Route:
    return Route(url=f"http://{HOST}:{port}", submit="/peers/1:noop", read="/status/{id}")


def _redis(running: RunningPeer, sync: str) -> dict[str, str]:
    """Start Redis as Debian configures it, with its log of writes on; return the variable with its URL."""
    (port,) = running.free_ports(1)
    where = ("--bind", HOST, "--port", str(port), "--dir", str(running.data_folder("redis")))
    stored = ("--appendonly", "yes", "--appendfsync", sync, "--save", "3600 1 300 100 60 10000")
    running.start("redis", ["redis-server", *where, *stored], port=port, is_server=True)
    return {"REDIS_URL": f"redis://{HOST}:{port}"}


def _door(running: RunningPeer, program: Path, app: str, variables: dict[str, str]) -> Route:
    """Start the HTTP service in front of a queue."""
    (port,) = running.free_ports(1)
    command = [str(program), app, "--host", HOST, "--port", str(port), *_UVICORN]
    running.start("http", command, port=port, variables=variables)
    return Route(url=f"http://{HOST}:{port}", submit="/operations", read="/operations/{id}")


def _saq(running: RunningPeer, sync: str = _EVERY_SECOND) -> Route:
    variables = _redis(running, sync)
    running.start("worker", [str(running.installed.program(SAQ, "saq")), "saq_noop.settings"], variables=variables)
    return _door(running, running.installed.program(SAQ, "uvicorn"), "saq_noop:app", variables)


def _celery(running: RunningPeer) -> Route:
    variables = _redis(running, _EVERY_SECOND)
    celery = str(running.installed.program(CELERY, "celery"))
    command = [celery, "-A", "celery_noop:queue", "worker", "-c", "2", "--loglevel", "WARNING"]
    running.start("worker", command, variables=variables)
    return _door(running, running.installed.program(CELERY, "uvicorn"), "celery_noop:app", variables)


def _dbos(running: RunningPeer) -> Route:
    """DBOS on PostgreSQL as it comes, which syncs each commit; the status is polled."""
    (port,) = running.free_ports(1)
    running.start_postgres("postgres", port)
    variables = {"DATABASE_URL": f"postgresql+psycopg://postgres@{HOST}:{port}/postgres"}
    return _door(running, running.installed.program(DBOS, "uvicorn"), "dbos_steps:app", variables)


def _restate(running: RunningPeer, app: str = "restate_noop:app") -> Route:
    """Restate's server, which syncs, and its handler; the GET waits for the end, as its documentation shows."""
    ingress, admin, node, handler = running.free_ports(4)
    variables = {
        "RESTATE_INGRESS__BIND_ADDRESS": f"{HOST}:{ingress}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"{HOST}:{admin}",
        "RESTATE_DISABLE_TELEMETRY": "true",
        "RESTATE_LOG_FILTER": "warn",
    }
    where = ("--no-logo", "--listen-mode", "tcp", "--bind-ip", HOST, "--bind-port", str(node))
    server = [str(running.installed.restate_server()), "--base-dir", str(running.data_folder("restate")), *where]
    running.start("server", server, port=admin, variables=variables, is_server=True)
    hypercorn = str(running.installed.program(RESTATE, "hypercorn"))
    address = f"{HOST}:{handler}"
    running.start("handler", [hypercorn, app, "--bind", address, "--worker-class", "uvloop"], port=handler)
    _register(f"http://{HOST}:{admin}/deployments", f"http://{address}")
    return Route(
        url=f"http://{HOST}:{ingress}",
        submit="/operations/noop/send",
        read="/restate/invocation/{id}/attach",
        id_member="invocationId",
        has_key=True,  # without one the result can't be read
        is_bare=True,
    )


def _restate_poll(running: RunningPeer) -> Route:
    """As `restate`; the result is polled."""
    return msgspec.structs.replace(_restate(running), read="/restate/invocation/{id}/output", pending=470)


def _register(url: str, handler: str) -> None:
    """Give Restate the address of its handler, as soon as it takes it."""
    body = json.dumps({"uri": handler}).encode()
    until = time.monotonic() + _REGISTER_TIMEOUT
    while True:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                answer.read()
                return
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > until:
                raise BenchFailed(f"Restate does not take its handler: {error}") from error
            time.sleep(0.2)


PEERS: Final = {
    "opstream": Peer(_opstream, (), "each service a process of its own; every write is synced"),
    "opstream-up": Peer(_opstream_up, (), "`opstream up` with its defaults"),
    "opstream-wait": Peer(
        lambda running: _waiting(_opstream(running)), (), "as opstream; the GET waits for the end (`Prefer: wait`)"
    ),
    "saq": Peer(_saq, (SAQ,), "SAQ and Redis behind FastAPI; Redis syncs once a second"),
    "saq-sync": Peer(lambda running: _saq(running, _ALWAYS), (SAQ,), "as saq; Redis syncs every write"),
    "celery": Peer(_celery, (CELERY,), "Celery and Redis behind FastAPI, late acks; Redis syncs once a second"),
    "restate": Peer(_restate, (RESTATE,), "Restate; its server syncs in groups; the GET waits for the end (`attach`)"),
    "opstream-steps": Peer(
        lambda running: _waiting(_opstream(running, _STEPS)), (), "as opstream-wait, with three steps"
    ),
    "opstream-up-steps": Peer(
        lambda running: _waiting(_opstream_up(running, _STEPS)),
        (),
        "as opstream-up, with three steps and `Prefer: wait`",
    ),
    "restate-steps": Peer(
        lambda running: _restate(running, "restate_steps:app"), (RESTATE,), "as restate, with three steps (`ctx.run`)"
    ),
    "dbos-steps": Peer(_dbos, (DBOS, POSTGRES), "DBOS on PostgreSQL behind FastAPI, with three steps"),
    "restate-poll": Peer(_restate_poll, (RESTATE,), "as restate; the result is polled (`output`)"),
}
DEFAULT: Final = ("opstream", "opstream-up", "saq", "celery", "restate")


def needs_of(names: tuple[str, ...], *, fsync_us: int) -> set[str]:
    """What must be installed for these peers."""
    found = {need for name in names for need in PEERS[name].needs}
    return found | {STRACE} if fsync_us else found
