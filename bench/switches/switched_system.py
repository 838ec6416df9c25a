"""A system of the benchmark on which some of what is off as it comes is on."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bench.harness.process_usage import BenchFailed
from bench.harness.system import HOST, RUNNER, WEBHOOKS, BenchSystem
from opstream_schemas.urls import BrokerCredentials

AUTH: Final = "auth"
INDEX: Final = "index"
METRICS: Final = "metrics"
ROLES: Final = "roles"
SWITCHES: Final = (AUTH, INDEX, METRICS, ROLES)

_ACTIONS: Final = "bench.harness.actions"
_INTERVAL: Final = 1.0
"""Seconds between two scrapes."""
_TIMEOUT: Final = 10.0
_HEADERS: Final = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5", "Accept-Encoding": "gzip"}
"""As Prometheus sends them."""
_OK: Final = 200


class SwitchedSystem(BenchSystem):
    """Broker and services, with what is named switched on.

    Args:
        folder: for data, logs and keys; must exist.
        switches: of `SWITCHES`. With `auth` the API asks for API keys, and the load sends one of a tenant; with
            `index` the projector writes an index in a file; with `metrics` all services are scraped each second; with
            `roles` each process has its own account at the broker.
    """

    def __init__(self, folder: Path, switches: Collection[str]) -> None:
        super().__init__(folder)
        self._keys = folder.absolute() / "access" / "keys"
        self._switches = switches
        self._scraper: _Scraper | None = None

    def start_broker(self) -> None:
        """Start the broker, with the accounts of `opstream broker-config` if roles are on."""
        if ROLES in self._switches:
            out = self._keys.parent
            port = self.nats_url.rpartition(":")[2]
            self.run_command("broker-config", "--out", str(out), "--no-tls", "--actions", _ACTIONS, "--nats-port", port)
            for name in (RUNNER, "api", "projector", WEBHOOKS):
                self.options[name] = self._login(name)
            self.options["provision"] = (*self._login("admin"), "--actions", _ACTIONS)
            self.options["broker"] = ("--accounts", str(out / "accounts.conf"))
            self.credentials = BrokerCredentials(nkey=str(self._keys / "admin.nk"))
        super().start_broker()

    def start_services(self, *, concurrency: int, actions: str = _ACTIONS) -> None:
        """Start the services, and make a key first if authentication is on."""
        if AUTH in self._switches:
            self.provision()
            owner = ("--tenant", "bench", "--subject", "load", "--scope", "submit:bench:*", "--scope", "read")
            login = self._login("admin") if ROLES in self._switches else ()
            printed = self.run_command("apikey", "add", *owner, "--nats", self.nats_url, *login)
            self.key = next(line for line in printed.splitlines() if line.startswith("ops_"))
            self.options["api"] = (*self.options.get("api", ()), "--auth", "keys")
        if INDEX in self._switches:
            index = ("--index", f"sqlite:{self._folder.absolute() / 'index.db'}")
            for name in ("api", "projector"):
                self.options[name] = (*self.options.get(name, ()), *index)
        if METRICS in self._switches:
            port = self._health_port("api health")
            self.options["api"] = (*self.options.get("api", ()), "--health-port", port)
        super().start_services(concurrency=concurrency, actions=actions)

    def start_webhooks(self) -> None:
        """Start the last service, and from then on scrape all if metrics are on."""
        super().start_webhooks()
        if METRICS in self._switches:
            names = ("api health", RUNNER, "projector", WEBHOOKS)
            self._scraper = _Scraper([self._ports[name] for name in names])
            self._scraper.start()

    def check_processes(self) -> None:
        """Check that all processes run, and that scrapes get their pages.

        Raises:
            BenchFailed: one has ended, or a scrape has failed.
        """
        super().check_processes()
        if self._scraper is not None and self._scraper.failure:
            raise BenchFailed(self._scraper.failure)

    def _login(self, role: str) -> tuple[str, ...]:
        return ("--nats-nkey", str(self._keys / f"{role}.nk"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._scraper is not None:
            self._scraper.stop()
        super().__exit__(kind, error, trace)


class _Scraper(threading.Thread):
    """Reads the metrics of some ports each second, as Prometheus does."""

    def __init__(self, ports: Collection[int]) -> None:
        super().__init__(daemon=True)
        self.failure = ""
        self._ports = ports
        self._is_over = threading.Event()

    def run(self) -> None:
        while not self._is_over.wait(_INTERVAL):
            for port in self._ports:
                try:
                    self._scrape(port)
                except (OSError, http.client.HTTPException) as error:
                    self.failure = f"/metrics of port {port} can't be read: {error!r}"

    def stop(self) -> None:
        """End it."""
        self._is_over.set()
        self.join()

    def _scrape(self, port: int) -> None:
        connection = http.client.HTTPConnection(HOST, port, timeout=_TIMEOUT)
        try:
            connection.request("GET", "/metrics", headers=_HEADERS)
            answer = connection.getresponse()
            answer.read()
            if answer.status != _OK:
                self.failure = f"/metrics of port {port} answered {answer.status}"
        finally:
            connection.close()
