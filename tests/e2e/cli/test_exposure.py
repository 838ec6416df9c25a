"""What a process shows to others: its sockets, its files, and what it does when it may open no more of them."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import signal
import socket
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest

from opstream_journal import announce_action
from tests.support.api.service import INPUT, spec
from tests.support.broker.server import Broker, free_port
from tests.support.journal.journals import linked
from tests.support.system.echo_actions import MODULE, poll, submit
from tests.support.system.processes import COMMAND, Process, run
from tests.support.system.scrape import scrape
from tests.support.system.wait import eventually
from tests.support.traces.collector import collecting
from tests.support.webhooks.receiver import SECRET

pytestmark = pytest.mark.e2e

_LISTENING: Final = "0A"
"""The state in /proc/net/tcp."""
_INODE: Final = re.compile(r"socket:\[(\d+)\]")
SERVING: Final = r"serving on 127.0.0.1 port (\d+)"
_FEW: Final = 48
"""File descriptors of a process: it can start, and serve some connections."""


def listening_addresses(pids: Iterable[int]) -> set[str]:
    """The addresses on which processes listen."""
    inodes = set()
    for pid in pids:
        for one in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                inodes |= set(_INODE.findall(str(one.readlink())))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENING and fields[9] in inodes:
                words = re.findall("." * 8, fields[1].partition(":")[0])
                raw = b"".join(int(word, 16).to_bytes(4, "little") for word in words)
                found.add(str(ipaddress.ip_address(raw)))
    return found


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        assert run("provision", "--nats", broker.url).returncode == 0
        yield broker


def start(name: str, broker: Broker, folder: Path, *options: str, command: tuple[str, ...] = COMMAND) -> Process:
    """Start a service."""
    more = ("--actions", MODULE) if name == "runner" else ()
    return Process(name, "--nats", broker.url, *more, *options, cwd=folder, command=command)


def test_up_is_for_this_machine_and_its_user(workplace: Path) -> None:
    """API, broker and health endpoints listen on loopback addresses; nobody else can read what the broker stores."""
    ports = ("--port", "0", "--nats-port", "0")
    with Process("up", *ports, "--data-dir", "data", "--actions", MODULE, cwd=workplace) as up:
        up.wait_for(r"^opstream is ready")
        addresses = listening_addresses([up.pid, *up.descendants()])
        assert addresses
        assert all(ipaddress.ip_address(one).is_loopback for one in addresses), addresses
        assert stat.S_IMODE((workplace / "data").stat().st_mode) == 0o700
        up.send(signal.SIGTERM)
        assert up.wait(10) == 0


@pytest.mark.parametrize("name", ["runner", "projector", "webhooks"])
def test_health_on_one_address(broker: Broker, workplace: Path, name: str) -> None:
    """`--health-host` decides who can reach it."""
    port = free_port()
    options = ("--health-host", "127.0.0.1", "--health-port", str(port))
    with start(name, broker, workplace, *options) as process, httpx.Client(trust_env=False) as http:

        def is_ready() -> bool:
            with contextlib.suppress(httpx.TransportError):  # it does not serve yet
                return http.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
            return False

        asyncio.run(eventually(is_ready, within=20))
        assert listening_addresses([process.pid]) == {"127.0.0.1"}


def test_metrics_of_the_hub_are_not_for_clients(broker: Broker, workplace: Path) -> None:
    """Each service of the process shows its own on its health port, and the API's port shows none of them."""
    ports = {name: free_port() for name in ("api", "projector", "webhooks")}
    given = [part for name, port in ports.items() for part in (f"--{name}-health-port", str(port))]
    with start("hub", broker, workplace, "--port", "0", *given) as hub, httpx.Client(trust_env=False) as http:
        public = f"http://127.0.0.1:{hub.wait_for(SERVING)[1]}"
        asyncio.run(eventually(lambda: all(_is_shown(http, port) for port in ports.values()), within=20))
        pages = {name: scrape(http, f"http://127.0.0.1:{port}") for name, port in ports.items()}
        own = ("opstream_http_requests_total", "opstream_projector_lag_events", "opstream_webhooks_oldest_due_seconds")
        for (name, page), metric in zip(pages.items(), own, strict=True):
            assert [one for one in own if one in page.kinds] == [metric], name
        _shows_clients_nothing(http, public)


async def announce(url: str) -> None:
    """Announce an action as a runner does."""
    async with linked(url) as link:
        await announce_action(link, spec())


def test_the_hub_sends_its_spans(broker: Broker, workplace: Path) -> None:
    """With `--otel` a collector gets the spans of the API and of the webhooks, from one process under one name."""
    asyncio.run(announce(broker.url))
    hooks = f'[[hooks]]\nname = "down"\nurl = "http://127.0.0.1:{free_port()}/"\nsecrets = ["{SECRET}"]\n'
    (workplace / "hooks.toml").write_text(hooks, encoding="utf-8")
    options = ("--port", "0", "--otel", "--config", "hooks.toml", "--allow-private", "127.0.0.0/8", "--allow-http")
    with collecting() as collector:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        with (
            Process("hub", "--nats", broker.url, *options, cwd=workplace, extra=variables) as hub,
            httpx.Client(base_url=f"http://127.0.0.1:{hub.wait_for(SERVING)[1]}", trust_env=False) as http,
        ):

            def is_taken() -> bool:  # once the API knows of the action
                answer = http.post("/book/42:upload-start", json=INPUT, headers={"Operation-Id": "traced"})
                return answer.status_code == 202

            asyncio.run(eventually(is_taken, within=20, poll=0.1))
            assert http.post("/status/traced:cancel").status_code == 200
            wanted = {"POST /book/{id}:upload-start", "POST /status/{id}:cancel", "POST"}
            asyncio.run(eventually(lambda: {span.name for span in collector.spans} >= wanted, within=20, poll=0.05))
        assert collector.services == {"opstream-hub"}
        of_operation = [
            span for span in collector.spans for one in span.attributes if one.value.string_value == "traced"
        ]
        assert wanted <= {span.name for span in of_operation}


def test_metrics_of_up_are_not_for_clients(workplace: Path) -> None:
    """`--health-port` is the first of the ports that it prints; the API's port has no metrics."""
    number = free_port()
    port = number - number % 8 + 4  # four in a row that `free_port` gives to no worker of a run with four
    options = ("--port", "0", "--nats-port", "0", "--data-dir", "data", "--health-port", str(port))
    with Process("up", *options, "--actions", MODULE, cwd=workplace) as up, httpx.Client(trust_env=False) as http:
        public = up.wait_for(r"^opstream is ready: API (\S+),")[1]
        printed = up.wait_for(r"^Metrics for Prometheus: (.*)$")[1].split(", ")
        assert printed == [f"127.0.0.1:{port + further}" for further in range(4)]
        assert all("opstream_ready" in scrape(http, f"http://{one}").kinds for one in printed)
        _shows_clients_nothing(http, public)


def _is_shown(http: httpx.Client, port: int) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return http.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    return False


def _shows_clients_nothing(http: httpx.Client, url: str) -> None:
    for path in ("/metrics", "/metrics/", "//metrics", "/api/metrics"):
        answer = http.get(f"{url}{path}", headers={"Accept": "text/plain"})
        assert answer.status_code == 404, path
        assert "opstream_" not in answer.text


@pytest.mark.parametrize(("host", "is_warned"), [("127.0.0.1", False), ("127.1", True)])
def test_an_api_that_any_host_may_name(broker: Broker, workplace: Path, host: str, *, is_warned: bool) -> None:
    """Behind an address that is not known to be loopback, the log says what to set."""
    asked = ("--insecure",) if is_warned else ()
    with start("api", broker, workplace, "--host", host, "--port", "0", *asked) as api:
        api.wait_for("serving on 127.0.0.1 port")
        api.send(signal.SIGTERM)
        assert api.wait(10) == 0
        assert ("set --public-url to the URL at which clients reach this service" in api.output) is is_warned


@pytest.mark.parametrize(("name", "condition"), [("api", "TooManyConnections"), ("runner", "OutOfFileDescriptors")])
def test_a_process_without_file_descriptors(broker: Broker, workplace: Path, name: str, condition: str) -> None:
    """It says so in its log, goes on with its work, and serves again once there is one. The API keeps some for its
    work, and refuses further connections before."""
    port = free_port()
    limited = ("sh", "-c", f'ulimit -n {_FEW}; exec "$@"', "limited", *COMMAND)
    option = "--port" if name == "api" else "--health-port"
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(start(name, broker, workplace, option, str(port), command=limited))
        other = "runner" if name == "api" else "api"
        other_port = ("--port", str(free_port())) if other == "api" else ()
        second = stack.enter_context(start(other, broker, workplace, *other_port))
        second.wait_for("serving on|running echo")
        http = stack.enter_context(httpx.Client(trust_env=False, timeout=10))

        def is_ready() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return http.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
            return False

        asyncio.run(eventually(is_ready, within=20))
        http.close()
        with contextlib.ExitStack() as open_sockets:
            for _ in range(_FEW):
                open_sockets.enter_context(socket.create_connection(("127.0.0.1", port)))
            process.wait_for(f"{condition}: .*next step")
        process.wait_for(f"{condition}: this is over")
        http = stack.enter_context(httpx.Client(trust_env=False, timeout=10))
        asyncio.run(eventually(is_ready, within=20))
        api = f"http://127.0.0.1:{port if name == 'api' else other_port[1]}"
        assert poll(http, api, submit(http, api, "say"))["status"] == "Succeeded"
        assert "Traceback" not in process.output
