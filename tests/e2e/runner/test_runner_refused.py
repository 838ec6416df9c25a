"""Runner processes that can't start: one line that says what to change, status 1, and no announcement."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from opstream_journal import find_action
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas.names import Kind
from tests.support.broker.server import Broker, free_port
from tests.support.journal.journals import linked
from tests.support.system.processes import Process, run
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

MODULE = "tests.support.runner.stubborn_actions"


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (None, "there is no module 'mine': check --actions and PYTHONPATH"),
        ("", "module mine defines no action"),
        ("@action('Book:upload')", "resource name 'Book' must be 1 to 40 characters of a-z, 0-9 and '-'"),
        ("@action('book:up load')", "action name 'up load' must be 1 to 40 characters of a-z, 0-9 and '-'"),
    ],
)
def test_actions_that_can_not_be_offered(tmp_path: Path, source: str | None, said: str) -> None:
    """A module that is missing, has no action, or has one with an invalid name is reported before the broker is
    used."""
    if source is not None:
        handler = "\ndef act(request: None, ctx: ActionContext) -> None: ..." if source else ""
        (tmp_path / "mine.py").write_text(f"from opstream import ActionContext, action\n{source}{handler}\n")
    refused = run("runner", "--nats", "nats://127.0.0.1:1", "--actions", "mine", cwd=tmp_path)
    assert (refused.returncode, said in refused.stderr) == (1, True)
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("code", ["0", "None", "3", "'a text'"])
def test_a_module_that_exits(tmp_path: Path, code: str) -> None:
    """A module that ends the process while it is imported is an error, also if it ends it with status 0."""
    (tmp_path / "mine.py").write_text(f"import sys\nsys.exit({code})\n")
    refused = run("runner", "--nats", "nats://127.0.0.1:1", "--actions", "mine", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "mine.py:2: the module 'mine' ends the process while it is imported" in refused.stderr


def test_a_stop_while_a_module_is_imported(tmp_path: Path) -> None:
    """SIGTERM is no fault of the module: the runner ends with status 0."""
    (tmp_path / "mine.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    with Process("runner", "--nats", "nats://127.0.0.1:1", "--actions", "mine", cwd=tmp_path) as runner:
        runner.wait_for("importing")
        runner.send(signal.SIGTERM)
        assert runner.wait(10) == 0
        assert "error" not in runner.output


def test_no_broker() -> None:
    """Without a broker a runner waits for its connect timeout, and then says so in one line."""
    began = time.monotonic()
    port = free_port()
    options = ("--nats", f"nats://127.0.0.1:{port}", "--actions", MODULE, "--connect-timeout", "1")
    refused = run("runner", *options)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert f"no NATS broker answered at nats://127.0.0.1:{port} within 1 s" in refused.stderr
    assert time.monotonic() - began < 10


def test_a_broker_that_does_not_answer(broker: Broker) -> None:
    """A broker that accepts the connection and stays silent counts as none."""
    broker.pause()
    refused = run("runner", "--nats", broker.url, "--actions", MODULE, "--connect-timeout", "1")
    broker.resume()
    assert refused.returncode == 1
    assert "no NATS broker answered" in refused.stderr
    assert "Warning" not in refused.stderr


def test_a_stop_before_the_broker_is_there() -> None:
    """SIGTERM ends a runner that still waits for its broker, with status 0."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(20)
        address = f"nats://127.0.0.1:{silent.getsockname()[1]}"
        with Process("runner", "--nats", address, "--actions", MODULE) as runner:
            silent.accept()[0].close()
            runner.send(signal.SIGTERM)
            assert runner.wait(10) == 0
            assert "Traceback" not in runner.output


async def test_a_port_that_is_taken(broker: Broker) -> None:
    """The error about a health port in use names the option, and comes before any announcement."""
    async with linked(broker.url) as link:
        await provision(link, Sizing())
        with socket.create_server(("0.0.0.0", 0)) as taken:
            port = taken.getsockname()[1]
            refused = run("runner", "--nats", broker.url, "--actions", MODULE, "--health-port", str(port))
        assert await find_action(link, Kind("work", "wait")) is None
    assert refused.returncode == 1
    assert f"can't listen on 0.0.0.0:{port}" in refused.stderr
    assert "--health-port" in refused.stderr


async def test_limits_that_the_broker_does_not_allow(broker: Broker) -> None:
    """A result in an event beyond the journal's limit is refused at the start, with what to change."""
    async with linked(broker.url) as link:
        await provision(link, Sizing(max_msg_size=100_000))
        command = ("runner", "--nats", broker.url, "--actions", MODULE, "--max-result", "1MiB")
        refused = run(*command)
        assert (refused.returncode, "opstream provision --max-msg-size" in refused.stderr) == (1, True)
        assert await find_action(link, Kind("work", "wait")) is None


async def test_health(broker: Broker, http: httpx.Client) -> None:
    """A runner is alive once it listens, and ready while it pulls and the broker is connected."""
    async with linked(broker.url) as link:
        await provision(link, Sizing())
    port = free_port()
    with Process("runner", "--nats", broker.url, "--actions", MODULE, "--health-port", str(port)) as runner:
        runner.wait_for("running work:block, ")

        def status(path: str) -> int:
            return http.get(f"http://127.0.0.1:{port}{path}").status_code

        await eventually(lambda: status("/readyz") == 200)
        assert (status("/healthz"), status("/other")) == (200, 404)
        broker.kill()
        await eventually(lambda: status("/readyz") == 503)
        assert status("/healthz") == 200
        broker.start()
        await eventually(lambda: status("/readyz") == 200)
        runner.send(signal.SIGTERM)
        assert runner.wait(10) == 0


TYPED = """
import msgspec
from opstream import ActionContext, action

class Input(msgspec.Struct):
    {member}: int

@action("book:print")
async def print_book(request: Input, ctx: ActionContext) -> None: ...
"""


async def test_a_type_that_changed_with_its_version(broker: Broker, tmp_path: Path) -> None:
    """A runner whose type changed under its version ends with what to do, and starts with the option."""
    async with linked(broker.url) as link:
        await provision(link, Sizing())
    start = ("runner", "--nats", broker.url, "--actions", "mine")
    (tmp_path / "mine.py").write_text(TYPED.format(member="pages"))
    with Process(*start, cwd=tmp_path) as first:
        await eventually(lambda: "running book:print" in first.output, within=30)
    (tmp_path / "mine.py").write_text(TYPED.format(member="leaves"))
    refused = run(*start, cwd=tmp_path)
    assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)
    assert "book:print: version 1 was announced with another schema of its input" in refused.stderr
    assert "@action(..., version=2)" in refused.stderr
    with Process(*start, "--allow-schema-change", cwd=tmp_path) as second:
        await eventually(lambda: "running book:print" in second.output, within=30)
        assert "another schema of its input" in second.output
