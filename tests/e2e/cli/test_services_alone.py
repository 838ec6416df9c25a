"""Each service by itself, as in production: started, killed and restarted, stopped, refused."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from opstream_journal import connect
from tests.support.broker.server import Broker, free_port
from tests.support.system.echo_actions import MODULE, poll, submit, write_actions
from tests.support.system.processes import Process, run
from tests.support.system.services import SERVICES, System

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=10) as client:
        yield client


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that serves. A test that kills a part of it starts it again."""
    folder = tmp_path_factory.mktemp("system")
    write_actions(folder)
    with ExitStack() as stack:
        system = System(folder, stack, MODULE)
        assert system.begin().splitlines()[0] == "made       stream TIMERS"
        yield system


def test_provision_again(system: System) -> None:
    """Provisioning is idempotent. A limit that is given and differs is reported, and applied only with --update."""
    nats = ("--nats", system.nats)
    again = run("provision", *nats)
    assert (again.returncode, again.stdout) == (0, "nothing to do: the broker has everything\n")
    differs = run("provision", *nats, "--max-age", "60d")
    assert differs.returncode == 1
    assert differs.stdout == "differs    stream OPERATIONS: max_age is 30d, should be 60d\n"
    assert "--update" in differs.stderr
    updated = run("provision", *nats, "--max-age", "60d", "--update")
    assert (updated.returncode, updated.stdout.split(":")[0]) == (0, "put right  stream OPERATIONS")
    kept = run("provision", *nats, "--update")
    assert (kept.returncode, kept.stdout) == (0, "nothing to do: the broker has everything\n")
    for options in (("--replicas", "2"), ("--replicas", "3", "--update")):
        alone = run("provision", *nats, *options)
        assert (alone.returncode, alone.stdout) == (1, "")
        need = f"{options[1]} replicas need a cluster of at least {options[1]} servers with JetStream"
        assert f"error: {need}, and the broker has 1 server, and is no cluster: start more" in alone.stderr
        assert alone.stderr.endswith("or choose --replicas 1\n")
    smaller = run("provision", *nats, "--max-age", "30d", "--update")
    assert smaller.returncode == 1
    assert "a smaller limit could drop events" in smaller.stderr


def test_provision_more_than_the_broker_takes(system: System) -> None:
    """A size of messages above the broker's own limit is refused. Larger documents lie in the payload store."""
    nats = ("--nats", system.nats)
    large = run("provision", *nats, "--max-msg-size", "20MiB", "--update")
    assert (large.returncode, large.stdout) == (1, "")
    assert large.stderr.startswith("opstream: error: the broker takes no message above 8388608 bytes: raise max_pay")
    for option in ("--max-body", "--max-result"):
        document = run("provision", *nats, option, "20MiB", "--update")
        assert (document.returncode, document.stdout) == (0, "nothing to do: the broker has everything\n")


def test_provision_an_archive(system: System) -> None:
    """It is made when it is requested, stays from then on, and limits that contradict others are refused."""
    nats = ("--nats", system.nats)
    nowhere = run("provision", *nats, "--archive-max-age", "3650d")
    assert (nowhere.returncode, nowhere.stdout) == (2, "")
    assert "add --archive to make it" in nowhere.stderr
    short = run("provision", *nats, "--archive", "--archive-max-age", "30d")
    assert (short.returncode, short.stdout, short.stderr.count("\n")) == (1, "", 1)
    assert "--archive-max-age must be longer" in short.stderr
    made = run("provision", *nats, "--archive", "--archive-max-age", "365d")
    assert (made.returncode, made.stdout) == (0, "made       stream ARCHIVE\n")
    kept = run("provision", *nats)
    assert (kept.returncode, kept.stdout) == (0, "nothing to do: the broker has everything\n")
    longer = run("provision", *nats, "--archive-max-age", "unlimited", "--update")
    assert longer.returncode == 0
    assert longer.stdout == "put right  stream ARCHIVE: max_age is 365d, should be unlimited\n"
    shorter = run("provision", *nats, "--archive-max-age", "730d", "--update")
    assert shorter.returncode == 1
    assert "a smaller limit could drop events" in shorter.stderr


def test_api_killed_after_a_submit(system: System, client: httpx.Client) -> None:
    """An operation that was accepted with 202 succeeds, although the API is killed."""
    operation_id = submit(client, system.api, "say")
    system.kill("api")
    system.start("api")
    system.wait_ready("api")
    assert poll(client, system.api, operation_id)["status"] == "Succeeded"


def test_runner_killed_during_an_action(system: System, client: httpx.Client) -> None:
    """The next runner takes over when the lease (5 s) has expired."""
    operation_id = submit(client, system.api, "wait")
    system.processes["runner"].wait_for("attempt 1")
    system.kill("runner")
    system.start("runner").wait_for("attempt 2")
    monitor = poll(client, system.api, operation_id)
    assert (monitor["status"], monitor["attempt"]) == ("Succeeded", 2)


def test_projector_killed(system: System, client: httpx.Client) -> None:
    """A status is right without a projector, and with the next one."""
    system.kill("projector")
    operation_id = submit(client, system.api, "say")
    before = poll(client, system.api, operation_id)
    assert before["status"] == "Succeeded"
    system.start("projector")
    system.wait_ready("projector")
    assert poll(client, system.api, operation_id) == before


def test_broker_killed(system: System, client: httpx.Client) -> None:
    """Services wait for the broker to come back, which has lost nothing that it had acknowledged."""
    before = submit(client, system.api, "say")
    assert poll(client, system.api, before)["status"] == "Succeeded"
    system.kill("broker")
    system.start("broker").wait_for("Server is ready")
    system.wait_ready(*SERVICES)
    assert poll(client, system.api, before)["status"] == "Succeeded"
    after = submit(client, system.api, "say")
    assert poll(client, system.api, after)["status"] == "Succeeded"


@pytest.mark.parametrize("name", [*SERVICES, "broker"])
def test_sigterm(system: System, name: str) -> None:
    """SIGTERM ends each within 5 seconds, without an error, with status 0."""
    system.processes[name].send(signal.SIGTERM)
    assert system.processes[name].wait(5) == 0
    assert "Traceback" not in system.processes[name].output


def start(name: str, workplace: Path, nats: str, *options: str) -> Process:
    """Start a service, with HTTP on a free port."""
    more = {"api": ("--port", "0"), "projector": (), "runner": ("--actions", MODULE)}
    return Process(name, "--nats", nats, *more[name], *options, cwd=workplace)


@pytest.fixture
def refused(workplace: Path) -> Iterator[Callable[..., dict[str, str]]]:
    """Starts all services with a broker that they can't use, and returns their output. All end with status 1."""
    with ExitStack() as stack:

        def start_all(nats: str, *options: str) -> dict[str, str]:
            processes = {name: stack.enter_context(start(name, workplace, nats, *options)) for name in SERVICES}
            codes = {name: process.wait(10) for name, process in processes.items()}
            assert codes == dict.fromkeys(SERVICES, 1)
            outputs = {name: process.output for name, process in processes.items()}
            for output in outputs.values():
                assert output.splitlines()[-1].startswith("opstream: error: ")
                assert "Traceback" not in output
            return outputs

        yield start_all


def test_no_broker(refused: Callable[..., dict[str, str]]) -> None:
    """A service waits for the broker for --connect-timeout, then the error says so."""
    nats = f"nats://127.0.0.1:{free_port()}"
    begin = time.monotonic()
    for output in refused(nats, "--connect-timeout", "1s").values():
        assert f"no NATS broker answered at {nats} within 1 s" in output
    assert time.monotonic() - begin > 1


def test_unprovisioned_broker(refused: Callable[..., dict[str, str]]) -> None:
    """A service ends at once, and the error says what to run."""
    with Broker() as broker:
        begin = time.monotonic()
        for output in refused(broker.url).values():
            assert "run 'opstream provision'" in output
        assert time.monotonic() - begin < 10


def test_drifted_broker(refused: Callable[..., dict[str, str]]) -> None:
    """A service ends at once, and the error has the difference and what to run, which corrects it."""

    async def drift(url: str) -> None:
        link = await connect([url], "test", connect_timeout=5)
        js = link.nc.jetstream()
        info = await js.stream_info("OPERATIONS")
        await js.update_stream(info.config.evolve(duplicate_window=60.0))
        await link.close()

    with Broker() as broker:
        assert run("provision", "--nats", broker.url).returncode == 0
        asyncio.run(drift(broker.url))
        for output in refused(broker.url).values():
            assert "stream OPERATIONS: duplicate_window is 60s, should be 15s" in output
            assert "run 'opstream provision --update'" in output
        assert run("provision", "--nats", broker.url).returncode == 1
        assert run("provision", "--nats", broker.url, "--update").returncode == 0


@pytest.mark.parametrize("name", SERVICES)
def test_sigterm_while_waiting_for_the_broker(workplace: Path, name: str) -> None:
    """A service that waits for a broker (here: one that never greets) ends cleanly, too."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        mute.settimeout(10)
        url = f"nats://127.0.0.1:{mute.getsockname()[1]}"
        with start(name, workplace, url) as process, mute.accept()[0]:
            process.send(signal.SIGTERM)
            assert process.wait(5) == 0
            assert "Traceback" not in process.output


@pytest.mark.parametrize("name", ["api", "runner"])
def test_port_in_use(workplace: Path, name: str) -> None:
    """A port in use is an error at once, which names the option to change."""
    option = {"api": "--port", "runner": "--health-port"}[name]
    with socket.socket() as listener, Broker() as broker:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert run("provision", "--nats", broker.url).returncode == 0
        port = str(listener.getsockname()[1])
        more = ("--actions", MODULE) if name == "runner" else ()
        result = run(name, "--nats", broker.url, option, port, *more, cwd=workplace)
        assert result.returncode == 1
        assert result.stderr.splitlines()[-1].startswith("opstream: error: ")
        assert result.stderr.splitlines()[-1].endswith(option)
