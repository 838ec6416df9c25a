"""nats-servers for a measurement: one, or three of one cluster, with `opstream broker`'s configuration.

strace counts their syncs, besides making each one longer (`bench/harness/slow_disk.py`). It sees `fsync` and
`fdatasync`. A write to a file that was opened with `O_SYNC` syncs, too: of those only the openings are counted.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from bench.harness.process_usage import BenchFailed, Usage, process_usage
from bench.harness.slow_disk import check_tracer
from opstream.local.nats_server import MAX_PAYLOAD, find_binary
from opstream.local.ports import ListenAddress, free_ports, local_url

_HOST: Final = "127.0.0.1"
_GARBAGE: Final = "30"
"""Of Go's garbage collector, as `opstream broker` sets it."""
_START_TIMEOUT: Final = 60.0
_STOP_TIMEOUT: Final = 10.0
_SYNC_CALL: Final = re.compile(rb"\bf(?:data)?sync\(")
_SYNC_OPEN: Final = re.compile(rb"\bopenat\(.*O_SYNC")


class SyncCounts(msgspec.Struct, frozen=True):
    """What strace has seen so far."""

    syncs: int
    """Calls of fsync and fdatasync."""
    opens: int
    """Files opened with O_SYNC; 0 while syncs are delayed, when they are not counted."""


def count_syncs(trace: bytes) -> SyncCounts:
    """Count in the output of strace. A call that another thread interrupts has two lines, and counts once."""
    return SyncCounts(syncs=len(_SYNC_CALL.findall(trace)), opens=len(_SYNC_OPEN.findall(trace)))


class Servers:
    """One nats-server, or a cluster.

    Args:
        folder: for data and logs; must exist.
        count: 1, or the size of the cluster.
        delay: seconds that each fsync takes longer.
        is_traced: True to count syncs, also without a delay.
        is_syncing: False for a broker that does not sync each write, to fill it.
    """

    def __init__(
        self, folder: Path, count: int, *, delay: float = 0.0, is_traced: bool = False, is_syncing: bool = True
    ) -> None:
        self._folder = folder
        self._delay = delay
        self._is_traced = is_traced or delay > 0
        check_tracer(int(self._is_traced))
        ports = free_ports([ListenAddress(_HOST, 0, "") for _ in range(count * 3)])
        self._ports, monitors, routes = ports[:count], ports[count : 2 * count], ports[2 * count :]
        self._monitors = monitors
        self._configs = [folder / f"n{number}.conf" for number in range(count)]
        interval = "always" if is_syncing else "2m"
        for number, config in enumerate(self._configs):
            store = folder / f"n{number}"
            store.mkdir(exist_ok=True)
            lines = [
                f'listen: "{_HOST}:{self._ports[number]}"',
                f'http: "{_HOST}:{monitors[number]}"',
                f"server_name: n{number}",
                f"max_payload: {MAX_PAYLOAD}",
                f"jetstream {{ store_dir: {json.dumps(str(store))}, sync_interval: {interval} }}",
            ]
            if count > 1:
                urls = ", ".join(local_url("nats", _HOST, port) for port in routes)
                lines.append(
                    f"cluster {{ name: bench, listen: {_HOST}:{routes[number]}, no_advertise: true, routes: [{urls}] }}"
                )
            config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def urls(self) -> list[str]:
        """One for each server."""
        return [local_url("nats", _HOST, port) for port in self._ports]

    @property
    def pids(self) -> list[int]:
        """Of the servers themselves, not of strace."""
        return [process.pid for process in self._processes]

    @property
    def ports(self) -> list[int]:
        """Where clients connect."""
        return self._ports

    def __enter__(self) -> Self:
        try:
            for number, config in enumerate(self._configs):
                self._start(number, config)
            for port in self._monitors:
                self._wait_healthy(port)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def usage(self) -> Usage:
        """Processor time and memory of all servers together, without strace's."""
        each = [process_usage(pid) for pid in self.pids]
        return Usage(cpu=sum(one.cpu for one in each), rss=sum(one.rss for one in each))

    def syncs(self) -> SyncCounts:
        """The syncs of all servers together; none without strace."""
        found = [count_syncs(path.read_bytes()) for path in self._folder.glob("n*.strace")]
        return SyncCounts(syncs=sum(one.syncs for one in found), opens=sum(one.opens for one in found))

    def _start(self, number: int, config: Path) -> None:
        command = [find_binary(), "--config", str(config)]
        if self._is_traced:
            calls = "fsync,fdatasync"
            inject = ["-e", f"inject={calls}:delay_enter={self._delay * 1e6:.0f}us"] if self._delay else []
            seen = calls if self._delay else f"{calls},openat"  # each call that is seen takes longer
            options = ["-e", f"trace={seen}", *inject, "-o", str(self._folder / f"n{number}.strace")]
            # Detached (-D), so that the process that is started is the server itself, which gets the signals.
            command = ["strace", "-D", "-qq", "-f", "--seccomp-bpf", *options, *command]
        with (self._folder / f"n{number}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env=os.environ | {"GOGC": _GARBAGE},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)

    def _wait_healthy(self, port: int) -> None:
        until = time.monotonic() + _START_TIMEOUT
        while not _is_healthy(port):
            if time.monotonic() > until or any(process.poll() is not None for process in self._processes):
                logs = [path.read_text(errors="replace")[-1_000:] for path in self._folder.glob("n*.log")]
                raise BenchFailed("a nats-server did not become healthy:\n" + "\n".join(logs))
            time.sleep(0.05)

    def _stop(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()


def _is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{_HOST}:{port}/healthz", timeout=2.0) as answer:
            return bool(json.loads(answer.read()) == {"status": "ok"})
    except (urllib.error.URLError, OSError):
        return False
