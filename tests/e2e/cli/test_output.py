"""What a command does is not changed by who reads its output: nobody, one who leaves, or one with an old encoding."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.support.cli.commands import COMMANDS
from tests.support.cli.terminal import MODULE, open_gate, write_module
from tests.support.system.processes import COMMAND, environment, run
from tests.support.system.services import System

pytestmark = pytest.mark.e2e

DONE: Final = "done"
FAILED: Final = "failed"
SHAPES: Final = {
    "closed": "exec {} >&-",
    "no line": "set -o pipefail; {} | true",
    "errors, too": "set -o pipefail; {} 2>&1 | true",
    "old encoding": "PYTHONIOENCODING=cp1252 exec {}",
}
"""How a shell runs the command."""
CLOSED: Final = "closed"
CALLS: Final = {
    "run": (f"run job:wait --operation-id {DONE} --input {{}}", 0),
    "run, failed": (f"run job:wait --operation-id {FAILED}" + """ --input '{"code": "Möwe 🐦"}'""", 1),
    "status": (f"status {DONE}", 0),
    "status, wait": (f"status {FAILED} --wait", 1),
    "cancel": (f"cancel {DONE}", 1),
    "retry": (f"retry {DONE}", 1),
    "download": (f"download {DONE} proof.pdf", 1),
    "signal": (f"signal {DONE} approval --input true", 1),
    "events": (f"events {DONE} --follow", 0),
    "audit": (f"audit {DONE}", 0),
    "audit, json": (f"audit {DONE} --json", 0),
    "replay": ("replay --format records", 0),
    "export": ("export events.parquet", 0),
    "verify": ("verify", 0),
    "verify, chain": ("verify --chain", 0),
    "rebuild": ("rebuild", 0),
    "backup": ("backup backups", 0),
    "restore": ("restore backups", 1),
    "doctor": ("doctor", 0),
    "apikey": ("apikey list", 0),
    "actions": ("actions", 0),
    "list": ("list", 1),
    "count": ("count", 1),
    "schedule": ("schedule list", 0),
    "top": ("top --once", 0),
    "broker-config": ("broker-config --out made-broker --actions bookshelf.actions --no-tls", 0),
    "parked": ("parked", 0),
    "deliveries": ("deliveries", 0),
    "redeliver": ("redeliver --endpoint callback", 0),
    "provision": ("provision", 0),
    "erase": (f"erase {DONE}", 1),
    "keys": ("keys erased", 0),
    "fail": (f"fail {DONE}", 1),
    "schemas": ("schemas schemas", 0),
    "keygen": ("keygen key-{n}", 0),
    "help": ("--help", 0),
    "help of a command": ("run --help", 0),
    "version": ("--version", 0),
    "a usage error": ("run", 2),
}
"""Each command with its exit status; without an index there are no lists. The services and `demo` print nothing but
logs and progress."""
SOME: Final = ("run", "run, failed", "status, wait", "events", "audit", "replay", "verify", "help", "a usage error")
"""The calls that are run in each way; the others only with a closed output."""
SERVICES: Final = {"api", "broker", "demo", "hub", "projector", "runner", "up", "webhooks"}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with an operation that has succeeded and one that has failed."""
    folder = tmp_path_factory.mktemp("output")
    write_module(folder)
    with ExitStack() as stack:
        system = System(folder, stack, MODULE)
        system.begin()
        given = {DONE: "{}", FAILED: '{"code": "Möwe 🐦"}'}
        for operation_id, document in given.items():
            open_gate(folder, operation_id)
            run("run", "job:wait", "--operation-id", operation_id, "--input", document, "--url", system.api)
        yield system


@pytest.fixture
def shell(system: System) -> Callable[[str], subprocess.CompletedProcess[bytes]]:
    """Run a line of a shell in the system's folder."""
    variables = environment({"OPSTREAM_URL": system.api, "OPSTREAM_NATS_URL": system.nats, "NO_PROXY": "127.0.0.1"})

    def shell(line: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["bash", "-c", line], cwd=system.folder, capture_output=True, check=False, timeout=60, env=variables
        )

    return shell


def test_all_commands_are_here() -> None:
    """The table above has every command that is no service."""
    assert {line.split()[0] for line, _ in CALLS.values()} - {"--help", "--version"} == COMMANDS.keys() - SERVICES


@pytest.mark.parametrize("shape", SHAPES)
def test_the_exit_status(
    shell: Callable[[str], subprocess.CompletedProcess[bytes]], shape: str, tmp_path: Path
) -> None:
    """Whatever reads the output, each command ends with the status of what it did, and without a traceback."""
    wrong = {}
    for name in CALLS if shape == CLOSED else SOME:
        line, status = CALLS[name]
        command = f"{shlex.join(COMMAND)} {line.replace('key-{n}', str(tmp_path / 'key'))}"
        result = shell(SHAPES[shape].format(command))
        said = (result.stdout + result.stderr).decode(errors="replace")
        if result.returncode != status or "Traceback" in said or "Exception ignored" in said:
            wrong[name] = (result.returncode, said)
    assert wrong == {}


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_documents_are_utf_8(shell: Callable[[str], subprocess.CompletedProcess[bytes]], encoding: str) -> None:
    """JSON is UTF-8 whatever the encoding of the terminal; text that has no place in that encoding is escaped."""
    for line in (f"run job:wait --operation-id {DONE} --input {{}}", f"events {DONE}", f"audit {DONE} --json"):
        result = shell(f"PYTHONIOENCODING={encoding} exec {shlex.join(COMMAND)} {line}")
        lines = result.stdout.decode("utf-8").splitlines()
        assert lines
        assert all(isinstance(json.loads(one), dict) for one in lines)
        assert "Möwe" in result.stdout.decode("utf-8") or line.startswith("audit")


def test_a_closed_output_is_no_socket(shell: Callable[[str], subprocess.CompletedProcess[bytes]]) -> None:
    """With stdout closed, its descriptor is not given to the connection to the broker, into which output would go."""
    result = shell(f"exec {shlex.join(COMMAND)} replay --format records >&-")
    assert result.returncode == 0, result.stderr
    assert b"events; go on with" in result.stderr


def test_a_full_disk_is_an_error(shell: Callable[[str], subprocess.CompletedProcess[bytes]]) -> None:
    """A result that could not be written where it was to be kept is an error: one line, status 1."""
    result = shell(f"exec {shlex.join(COMMAND)} run job:wait --operation-id {DONE} --input {{}} > /dev/full")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(b"opstream: error: standard output can't be written to (No space")
