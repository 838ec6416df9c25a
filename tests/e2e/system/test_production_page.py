"""docs/production.md: its commands, in its order, make a system on three servers that works and rotates a key."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from opstream.broker_setup.certificates import PrivateAuthority
from tests.support.broker.server import SERVER, free_port
from tests.support.system.processes import Process, environment, run

pytestmark = pytest.mark.e2e

ROOT: Final = Path(__file__).resolve().parents[3]
PAGE: Final = (ROOT / "docs" / "production.md").read_text(encoding="utf-8")
HOSTS: Final = ("n1.example", "n2.example", "n3.example")
PORTS: Final = ("4222", "6222", "8222", "8080", "8090", "8091", "8092", "8093")


def commands(title: str) -> list[str]:
    """The commands of a section's blocks, one a line."""
    (text,) = [part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE) if part.startswith(f"{title}\n")]
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


class PageSystem:
    """What the page sets up: each of its machines is a loopback address here."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.variables: dict[str, str] = {}
        self.servers: list[Process] = []
        self.services: dict[str, Process] = {}
        self.provision: Process | None = None
        self._stack = stack
        self._etc = folder / "etc"
        ports = {port: str(free_port()) for port in PORTS}
        self._names = {
            **{host: f"127.0.0.{number + 1}" for number, host in enumerate(HOSTS)},
            "https://api.example.com --input": f"http://127.0.0.1:{ports['8080']} --input",
            "/etc/nats": str(self._etc),
            "/var/lib/nats": str(folder / "store"),
            "0.0.0.0": "127.0.0.1",
            **ports,
        }
        self._issue_certificates()

    def of_page(self, line: str) -> list[str]:
        """Return the words of a command, with the machines, folders and ports of this test."""
        found = re.compile("|".join(map(re.escape, self._names)))
        return shlex.split(found.sub(lambda match: self._names[match[0]], line))

    def take(self, line: str) -> str:
        """Do what a line says; return what it printed."""
        program, *words = self.of_page(line)
        match program, words[0]:
            case "export", text:
                name, _, value = text.partition("=")
                self.variables[name] = value
            case "nats-server", "-c":
                self._start_server(words)
            case "nats-server", _:
                for server in self.servers:
                    self._done(str(SERVER), "--signal", f"reload={server.pid}")
            case "opstream", ("projector" | "webhooks" | "runner" | "api") as name:
                self.services[name] = self._stack.enter_context(self.process(*words))
            case "opstream", "broker-config":
                made = self.opstream(*words, "--nats-port", self._names["4222"], "--cluster-port", self._names["6222"])
                if not self.servers:  # the step between two blocks: copy the files to their machines
                    for path in (self.folder / "broker").glob("*.conf"):
                        shutil.copy(path, self._etc)
                return made
            case "opstream", _:
                return self.opstream(*words)
            case _:
                self._done(program, *words)
        return ""

    def opstream(self, *words: str) -> str:
        """Run a command to its end; return what it printed."""
        done = run(*words, cwd=self.folder, extra=self.variables, timeout=90)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def process(self, *words: str) -> Process:
        """Start a command."""
        return Process(*words, cwd=self.folder, extra=self.variables)

    def _start_server(self, words: list[str]) -> None:
        server = self._stack.enter_context(Process(command=[str(SERVER), *words], cwd=self.folder))
        self.servers.append(server)
        server.wait_for("Listening for client connections")

    def _done(self, *words: str) -> None:
        subprocess.run(words, cwd=self.folder, check=True, capture_output=True, env=environment())

    def _issue_certificates(self) -> None:
        self._etc.mkdir()
        authority = PrivateAuthority()
        (self._etc / "ca.pem").write_bytes(authority.certificate)
        for number, host in enumerate(HOSTS):
            pair = authority.issue(host, [f"127.0.0.{number + 1}"])
            (self._etc / f"n{number + 1}.pem").write_bytes(pair.certificate)
            (self._etc / f"n{number + 1}.key").write_bytes(pair.key)


def test_the_commands(tmp_path: Path) -> None:
    """Three servers, all services, a submit with an API key, and the APIs' key that is replaced while all runs.

    The first server is alone when `provision` begins: it waits for the others.
    """
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    with ExitStack() as stack:
        system = PageSystem(tmp_path, stack)
        lines = commands("Set it up")
        configure, first, second, third, *rest = lines
        system.take(configure)
        system.take(first)
        exports = [line for line in rest if line.startswith("export ")]
        for line in exports:
            system.take(line)
        (provision,) = [line for line in rest if line.startswith("opstream provision ")]
        waiting = stack.enter_context(system.process(*system.of_page(provision)[1:]))
        waiting.wait_for("the broker is not usable yet")
        system.take(second)
        system.take(third)
        assert waiting.wait(30) == 0, waiting.output

        add, submit, doctor = rest[-3:]
        for line in rest[len(exports) + 1 : -3]:
            system.take(line)
        assert set(system.services) == {"projector", "webhooks", "runner", "api"}
        system.variables["OPSTREAM_TOKEN"] = system.take(add).strip()
        system.services["api"].wait_for("serving|listening|ready")
        system.services["runner"].wait_for("taking|running|ready")
        assert "transactionId" in system.take(submit)
        assert "critical" not in system.take(doctor)

        old = (tmp_path / "broker" / "keys" / "api.nk").read_bytes()
        for line in commands("Rotate"):
            system.take(line)
        assert (tmp_path / "broker" / "keys" / "api.nk").read_bytes() != old
        (tmp_path / "old.nk").write_bytes(old)
        # The broker takes the old key no more, and the API that had it works with the new one.
        system.services["api"].wait_for("the broker connection is back")
        old_login = ("--nats-nkey", "old.nk", "--connect-timeout", "2s")
        refused = run("api", "--port", "0", *old_login, cwd=tmp_path, extra=system.variables)
        assert (refused.returncode, "refuses the login" in refused.stderr) == (1, True), refused.stderr
        assert "transactionId" in system.take(submit)
        assert "critical" not in system.take(doctor)
        for name, process in system.services.items():
            assert process.is_running, f"{name}: {process.output}"
            process.send(signal.SIGTERM)
        for name, process in system.services.items():
            assert process.wait(15) == 0, f"{name}: {process.output}"
