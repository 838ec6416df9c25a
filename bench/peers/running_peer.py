"""The processes of one peer: they are started in a folder of their own, and all ended by their process ids."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bench.harness.process_usage import BenchFailed
from bench.harness.slow_disk import slowed
from bench.peers import process_tree
from bench.peers.installation import Installation, postgres_programs
from opstream.local.ports import ListenAddress, free_ports
from opstream.local.processes import SUPERVISOR_VARIABLE

ROOT: Final = Path(__file__).resolve().parents[2]
APPS: Final = Path(__file__).resolve().parent / "apps"
HOST: Final = "127.0.0.1"

_START_TIMEOUT: Final = 60.0
_STOP_TIMEOUT: Final = 10.0
_POLL: Final = 0.05
_TAIL: Final = 2_000


class RunningPeer:
    """What the catalogue uses to start a peer.

    Args:
        folder: for data and logs; must exist.
        installed: where the peers' programs are.
        clients: as many operations may be in flight.
        fsync_us: microseconds that each fsync of a server takes longer.
    """

    def __init__(self, folder: Path, installed: Installation, *, clients: int, fsync_us: int) -> None:
        self.folder = folder
        self.installed = installed
        self.clients = clients
        self._fsync_us = fsync_us
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._processes:  # the server, which started first, ends last
            _stop(self._processes.popitem()[1])

    def free_ports(self, count: int) -> list[int]:
        """Ports of loopback on which no process listens, all different."""
        return free_ports([ListenAddress(HOST, 0, "") for _ in range(count)])

    def data_folder(self, name: str) -> Path:
        """A new folder for a server's data."""
        folder = self.folder / name
        folder.mkdir()
        return folder

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        port: int | None = None,
        variables: Mapping[str, str] | None = None,
        is_server: bool = False,
    ) -> None:
        """Start a process.

        Args:
            name: in the tables; no running process may have it.
            command: program and arguments.
            port: wait until the process accepts connections there.
            variables: further ones of its environment.
            is_server: it stores what was accepted, so its syncs are delayed if the disk is to be slow.

        Raises:
            BenchFailed: it ended, or does not listen in time.
        """
        words = slowed(command, self._fsync_us if is_server else 0)
        if SUPERVISOR_VARIABLE not in (variables or {}) and (guard := shutil.which("setpriv")):
            # The kernel ends it if the benchmark is killed. A process of opstream sees to that itself.
            words = [guard, "--pdeathsig", "TERM", *words]
        with self._log(name).open("wb") as log:
            # In a session of its own, so that Ctrl-C reaches only the benchmark, which then stops all in order.
            self._processes[name] = subprocess.Popen(
                words,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(APPS), **(variables or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if port is not None:
            self._wait_for_port(name, port)

    def start_opstream(self, name: str, *options: str, port: int | None = None, is_server: bool = False) -> None:
        """Start a command of this checkout's opstream, named like the process."""
        command = [sys.executable, "-P", "-m", "opstream", name, *options, "--log-level", "warning"]
        variables = {"PYTHONPATH": "", SUPERVISOR_VARIABLE: str(os.getpid())}
        self.start(name, command, port=port, variables=variables, is_server=is_server)

    def start_postgres(self, name: str, port: int) -> None:
        """Start a PostgreSQL with its defaults and an empty database `postgres`, whose owner needs no password.

        Raises:
            BenchFailed: it can't be set up, or does not start.
        """
        programs = postgres_programs()
        if programs is None:
            raise BenchFailed("there is no PostgreSQL: run 'make peers'")
        # It refuses to run as root, and to let another user's folder be its own.
        user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
        self.folder.chmod(0o755)
        data = self.data_folder(name)
        if user:
            shutil.chown(data, "nobody", "nogroup")
        made = [*user, str(programs / "initdb"), "--username=postgres", "--auth=trust", f"--pgdata={data}"]
        done = subprocess.run(made, cwd=data, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchFailed(f"initdb failed: {done.stderr}")
        where = ["-h", HOST, "-p", str(port), "-k", str(data)]
        self.start(name, [*user, str(programs / "postgres"), "-D", str(data), *where], port=port, is_server=True)

    def finish(self, name: str) -> None:
        """Wait for the good end of a process that only prepares.

        Raises:
            BenchFailed: it failed.
        """
        if self._processes.pop(name).wait(_START_TIMEOUT):
            raise BenchFailed(f"{name} failed:\n{self._tail(name)}")

    def check_processes(self) -> None:
        """Check that all processes run.

        Raises:
            BenchFailed: one has ended.
        """
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise BenchFailed(f"{name} ended with status {process.returncode}:\n{self._tail(name)}")

    def cpu(self) -> dict[str, float]:
        """Seconds of processor time that each process and each kind of its descendants have used so far."""
        times = process_tree.all_times()
        return {name: sum(times[pid].cpu for pid in pids) for name, pids in self._named(times).items()}

    def memory(self) -> dict[str, int]:
        """Bytes (PSS) of each process and each kind of its descendants."""
        return {name: process_tree.pss(pids) for name, pids in self._named(process_tree.all_times()).items()}

    def _named(self, times: dict[int, process_tree.ProcessTimes]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for name, process in self._processes.items():
            for pid in process_tree.tree(times, process.pid):
                label = name if pid == process.pid else f"{name}/{process_tree.label(pid)}"
                found.setdefault(label, []).append(pid)
        return found

    def _wait_for_port(self, name: str, port: int) -> None:
        until = time.monotonic() + _START_TIMEOUT
        while True:
            self.check_processes()
            with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1.0):
                return
            if time.monotonic() > until:
                raise BenchFailed(f"{name} did not listen on port {port} in {_START_TIMEOUT:g} s:\n{self._tail(name)}")
            time.sleep(_POLL)

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _tail(self, name: str) -> str:
        return self._log(name).read_text(errors="replace")[-_TAIL:] or "(no output)"


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process, and what is left of its session."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_TIMEOUT)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
