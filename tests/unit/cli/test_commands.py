"""The commands: their help, their output, their errors."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

import opstream
import opstream.cli.commands.provision
import opstream_projector.main
from opstream.cli.app import SECTIONS, main
from opstream.local.nats_server import MAX_PAYLOAD, Settings, configuration, find_binary, lock_data_dir, run_broker
from opstream.local.ports import ListenAddress, free_ports
from opstream.terminal import console, logs
from opstream.terminal.console import CommandError
from opstream_journal import Drifted
from opstream_journal.provisioning.config_drift import Drift
from opstream_journal.provisioning.provision import ProvisionReport
from opstream_schemas.asyncapi import asyncapi_document
from opstream_schemas.json_schemas import json_schemas
from tests.support.cli.commands import COMMANDS

pytestmark = pytest.mark.unit

NAMES = sorted(COMMANDS)
HELPS = {name: text for commands in SECTIONS.values() for name, text in commands.items()}


def options(command: str) -> list[click.Option]:
    return [one for one in COMMANDS[command].params if isinstance(one, click.Option)]


@pytest.fixture
def process_restored() -> Iterator[None]:
    """Restores what a command changes in its process: logging, and the handler of SIGTERM."""
    handler = signal.getsignal(signal.SIGTERM)
    root, quiet = logging.getLogger(), logging.getLogger("uvicorn")
    before = (root.level, root.handlers[:], quiet.level)
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    quiet.setLevel(before[2])
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener


def test_version() -> None:
    """`--version` prints one line."""
    assert CliRunner().invoke(main, ["--version"]).output == f"opstream {opstream.__version__}\n"


@pytest.mark.parametrize("command", NAMES)
def test_help_names_every_variable(command: str) -> None:
    """The help of each command has a text and the variable of each option."""
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    text = "".join(result.output.split())
    for option in options(command):
        assert isinstance(option.envvar, str)
        assert option.envvar.startswith("OPSTREAM_")
        assert f"envvar:{option.envvar}" in text
        assert option.help


@pytest.mark.parametrize("command", NAMES)
def test_help_has_an_example(command: str) -> None:
    """The help of each command has an example, on lines that a terminal does not break."""
    lines = CliRunner().invoke(main, [command, "--help"], terminal_width=80).output.splitlines()
    examples = [line for line in lines if line.startswith(f"    opstream {command}")]
    assert examples
    assert HELPS[command]


def test_the_list_of_commands() -> None:
    """`opstream --help` has each command once, with one whole line."""
    shown = CliRunner().invoke(main, ["--help"], terminal_width=80).output.rpartition("\n\n")[0]
    found = re.findall(r"^  ([a-z][a-z-]*) +(\S.*)$", shown, flags=re.MULTILINE)
    assert sorted(found) == [(name, HELPS[name]) for name in NAMES]


def test_one_variable_per_option() -> None:
    """An option has the same variable in each command that has it, and no other option has that variable."""
    pairs = {(option.opts[0], option.envvar) for command in NAMES for option in options(command)}
    assert len({name for name, _ in pairs}) == len(pairs)
    assert len({variable for _, variable in pairs}) == len(pairs)


def test_schemas(tmp_path: Path) -> None:
    """`schemas DIR` makes the folder, writes one file per schema and the AsyncAPI document, and prints each path."""
    folder = tmp_path / "a" / "b"
    result = CliRunner().invoke(main, ["schemas", str(folder)])
    assert result.exit_code == 0
    expected = {
        f"{name}.json": document for name, document in {**json_schemas(), "asyncapi": asyncapi_document()}.items()
    }
    assert {"operation.json", "opstream.action.started.v1.json", "asyncapi.json"} <= expected.keys()
    assert result.output.split() == [str(folder / name) for name in expected]
    assert {path.name: json.loads(path.read_text()) for path in folder.iterdir()} == expected


def test_schemas_into_a_file(tmp_path: Path) -> None:
    """A folder that can't be made is an error of one line."""
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(main, ["schemas", str(tmp_path / "file" / "below")])
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith("opstream: error: can't write to ")


@pytest.mark.usefixtures("process_restored")
def test_expected_errors_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """An expected error of a service is one line on stderr, without a traceback, and status 1."""

    def refuse(_settings: Any) -> None:
        raise Drifted("the broker differs: run 'opstream provision --update'")

    monkeypatch.setattr(opstream_projector.main, "run", refuse)
    result = CliRunner().invoke(main, ["projector"])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "opstream: error: the broker differs: run 'opstream provision --update'\n"


DRIFT = Drift(name="stream OPERATIONS", field="max_bytes", actual="2", wanted="1", is_safe=False)


@pytest.mark.parametrize(
    ("report", "code", "output", "error"),
    [
        (ProvisionReport(made=(), updated=(), drift=()), 0, "nothing to do: the broker has everything\n", ""),
        (
            ProvisionReport(made=("stream A",), updated=("stream B: x is 1, should be 2",), drift=()),
            0,
            "made       stream A\nput right  stream B: x is 1, should be 2\n",
            "",
        ),
        (
            ProvisionReport(made=(), updated=(), drift=(), kept=("stream A takes b",)),
            0,
            "kept       stream A takes b\nnothing to do: the broker has everything\n",
            "",
        ),
        (
            ProvisionReport(made=(), updated=(), drift=(DRIFT,)),
            1,
            "differs    stream OPERATIONS: max_bytes is 2, should be 1\n",
            "leave it out to keep the one that is there",
        ),
        (
            ProvisionReport(made=(), updated=(), drift=(replace(DRIFT, field="subjects", is_safe=True),)),
            1,
            "differs    stream OPERATIONS: subjects is 2, should be 1\n",
            "run it again with --update",
        ),
        (
            ProvisionReport(made=(), updated=(), drift=(replace(DRIFT, field="retention"),)),
            1,
            "differs    stream OPERATIONS: retention is 2, should be 1\n",
            "recreate it",
        ),
    ],
    ids=["nothing", "done", "of a newer version", "smaller limit", "safe", "unsafe"],
)
@pytest.mark.usefixtures("process_restored")
def test_the_report_of_provision(
    monkeypatch: pytest.MonkeyPatch, report: ProvisionReport, code: int, output: str, error: str
) -> None:
    """It lists what was made and put right, what still differs, and then what to do."""

    async def provided(*_: Any) -> ProvisionReport:
        return report

    monkeypatch.setattr(opstream.cli.commands.provision, "_provision", provided)
    result = CliRunner().invoke(main, ["provision"])
    assert (result.exit_code, result.stdout) == (code, output)
    assert error in result.stderr
    assert result.stderr.count("\n") == (1 if error else 0)


@pytest.mark.usefixtures("process_restored")
def test_contradicting_sizes() -> None:
    """A journal that could not store what the API accepts is refused before a connection is made."""
    result = CliRunner().invoke(main, ["provision", "--max-body", "1MiB", "--max-msg-size", "256KiB"])
    assert result.exit_code == 1
    assert "use 278528 or more" in result.stderr


def test_broker_configuration(tmp_path: Path) -> None:
    """It has JetStream in the data folder, synced writes, payloads above all limits, and escapes odd folder names."""
    settings = Settings(host="::1", port=0, data_dir=tmp_path)
    text = configuration(settings, 4321, Path('/data/ü "x"'))
    assert 'listen: "[::1]:4321"' in text
    assert r'store_dir: "/data/ü \"x\""' in text
    assert "sync_interval: always" in text
    assert f"max_payload: {MAX_PAYLOAD}" in text


def test_broker_becomes_the_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The process becomes nats-server, which inherits the lock on the data."""
    calls: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(os, "execv", lambda path, arguments: calls.append((path, arguments)))
    run_broker(Settings(host="127.0.0.1", port=0, data_dir=tmp_path / "new" / "data"))
    config = tmp_path / "new" / "data" / "nats.conf"
    assert calls == [(find_binary(), ["nats-server", "--config", str(config)])]
    assert "jetstream {" in config.read_text()
    with pytest.raises(CommandError, match=r"another broker uses .*--data-dir"):
        lock_data_dir(tmp_path / "new" / "data")


HEAVY = (
    "{'litestar', 'faststream', 'uvicorn', 'httpx', 'nats', 'pyarrow', 'opstream.client', 'opstream_journal', "
    "'opstream_api', 'opstream_projector', 'opstream_webhooks'}"
)


@pytest.mark.parametrize("command", [name for commands in SECTIONS.values() for name in commands])
def test_help_loads_nothing_heavy(command: str) -> None:
    """A command is imported only when it is called, and what it works with only when it runs, so that its help and a
    usage error come at once."""
    program = f"""import sys; from opstream.cli.app import main
try: main([{command!r}, '--help'])
finally: print(sorted({HEAVY} & set(sys.modules)))"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_broker_loads_no_web_framework(tmp_path: Path) -> None:
    """Nothing heavy is loaded when the process becomes nats-server."""
    program = f"""import os, sys; from opstream.cli.app import main
os.execv = lambda *_: sys.exit(str(sorted({HEAVY} & set(sys.modules))))
main(["broker", "--nats-port", "0", "--data-dir", {str(tmp_path)!r}])"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("", "[]\n")


def test_broker_without_a_binary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A missing nats-server is an error that says so."""
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CommandError, match="there is no nats-server: install"):
        find_binary()


def test_broker_on_a_folder_that_is_a_file(tmp_path: Path) -> None:
    """A data folder that can't be used is an error that says so."""
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match="choose another folder with --data-dir"):
        run_broker(Settings(host="127.0.0.1", port=0, data_dir=tmp_path / "file" / "data"))


def test_a_port_in_use(listener: socket.socket) -> None:
    """The error names the port and the option to change."""
    port = listener.getsockname()[1]
    with pytest.raises(CommandError, match=f"port {port} on 127.0.0.1 is in use: .* with --nats-port"):
        free_ports([ListenAddress("127.0.0.1", port, "--nats-port")])


def test_one_port_twice(listener: socket.socket) -> None:
    """Two servers can't share a port; the second one's option is named."""
    port = listener.getsockname()[1]
    listener.close()
    with pytest.raises(CommandError, match="--nats-port"):
        free_ports([ListenAddress("127.0.0.1", port, "--port"), ListenAddress("127.0.0.1", port, "--nats-port")])


def test_a_host_of_another_machine() -> None:
    """A foreign address is an error that says so (192.0.2.1 is reserved for documentation: RFC 5737)."""
    with pytest.raises(CommandError, match=r"192\.0\.2\.1 is not an address of this machine: change --host"):
        free_ports([ListenAddress("192.0.2.1", 0, "--port")])


def test_free_ports_differ() -> None:
    """For zero there is a free port; no two are the same."""
    ports = free_ports([ListenAddress("127.0.0.1", 0, "--port")] * 20)
    assert len(set(ports)) == 20
    assert all(10_240 <= port < 32_768 for port in ports)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are colours on a terminal only, and not if NO_COLOR is set."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert console.supports_colour(Terminal())
    assert not console.supports_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not console.supports_colour(Terminal())


@pytest.mark.usefixtures("process_restored")
def test_log_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Each record is one line on stderr: time in UTC, level, logger, message; none is below the level."""
    logs.configure("info")
    logging.getLogger("a.b").info("hello %s", "you")
    logging.getLogger("a.b").debug("not this")
    logging.getLogger("uvicorn.error").info("nor this")
    output = capsys.readouterr()
    assert output.out == ""
    moment, _, rest = output.err.partition(" ")
    assert rest == "INFO    a.b: hello you\n"
    assert moment[10] == "T"
    assert moment.endswith("Z")


def test_services_load_only_what_they_need() -> None:
    """No service loads what another library would bring along: pydantic, attrs, FastStream, httpx with its colours, or
    the library that only a login with a key needs. Together they would be half of a service's memory."""
    program = """import sys
import opstream_api.main, opstream_projector.main, opstream_runner.main, opstream_webhooks.main
from opstream_api.app import PlainLitestar
PlainLitestar([])
heavy = {'attrs', 'cryptography', 'jwt', 'faststream', 'httpx', 'pydantic', 'pygments', 'rich'}
print(sorted(heavy & set(sys.modules)))"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
