"""The commands of which `opstream up` consists: what each is given, where it listens, what is in its environment."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from opstream.terminal.logs import JSON
from opstream_schemas.urls import LOGIN_VARIABLES

from .ports import ListenAddress, free_ports, local_url
from .processes import SUPERVISOR_VARIABLE
from .role_access import RoleAccess

LOOPBACK: Final = "127.0.0.1"
HUB: Final = "hub"
BROKER_CONFIG: Final = "broker-config"
JOINT_SERVICES: Final = ("api", "projector", "webhooks")
"""The services of the hub, in the order in which they stop."""

_HEALTHY: Final = ("api", "projector", "runner", "webhooks")
"""The services with a health port, in the order of their ports."""
_CONNECT_TIMEOUT: Final = "15s"
_TRACING_VARIABLE: Final = "OPSTREAM_OTEL"
"""A variable, since not all of the processes have its option."""
_INDEX_VARIABLE: Final = "OPSTREAM_INDEX"
_SECRETS_VARIABLE: Final = "OPSTREAM_CALLBACK_SECRETS"
"""The variable of `--callback-secret`."""
_KEK_FILE_VARIABLE: Final = "OPSTREAM_KEK_FILE"
_KEK_COMMAND_VARIABLE: Final = "OPSTREAM_KEK_COMMAND"
_TEXT_ONLY: Final = frozenset({"broker", "provision"})
_WITH_KEKS: Final = frozenset({"api", HUB, "runner"})
_WITH_SECRETS: Final = frozenset({"webhooks", HUB})


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `opstream up`."""

    host: str
    port: int
    """0 for a free one."""
    public_url: str | None
    auth: tuple[str, ...] = ()
    """What credentials requests need."""
    auth_keys_file: Path | None = None
    caller_requests: str = ""
    """Of each caller; empty for any number."""
    caller_open_operations: int = 0
    """Of each caller; 0 for any number."""
    jwt: tuple[str, ...] = ()
    """The API's options about bearer tokens, as they are."""
    is_insecure: bool = False
    """Serve other machines without credentials."""
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    nats_port: int
    """0 for a free one."""
    data_dir: Path
    modules: tuple[str, ...]
    concurrency: int
    drain: float
    """Seconds."""
    max_body: int
    """Bytes."""
    max_result: int
    """Bytes."""
    upload_limit: int
    """Bytes."""
    is_archiving: bool
    """Make an archive."""
    webhooks_config: Path | None = None
    callback_hosts: tuple[str, ...] = ()
    callback_secrets: tuple[str, ...] = ()
    networks: tuple[Any, ...] = ()
    """Networks outside of the public internet to which webhooks may be delivered."""
    is_http_allowed: bool = False
    log_level: str
    log_format: str = "text"
    is_traced: bool = False
    """Send traces of the services that make spans."""
    has_request_log: bool = True
    health_port: int = 0
    """The first of the ports of the services' health; 0 for free ones."""
    is_secure: bool = False
    """Give each process a key of its own at the broker."""
    index: str | None = None
    """URL of the index, or `off`; None for a file in the data folder."""
    payload_store: str = "jetstream:"
    """URL of the payload store."""
    kek_file: str | None = None
    """The key-encryption keys of API and runner."""
    kek_command: str | None = None
    """In place of the file: what prints them."""
    is_apart: bool = False
    """Run api, projector and webhooks as processes of their own."""


class SystemCommands:
    """The commands of one system, on ports that are free now.

    Attributes:
        port: of the API.
        nats_port: of the broker.

    Raises:
        CommandError: a port is in use.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._access = RoleAccess(settings.data_dir)
        self._access.check(is_secure=settings.is_secure)
        first = settings.health_port
        numbers = [first and first + further for further in range(len(_HEALTHY))]
        self.port, self.nats_port, *health = free_ports(
            [
                ListenAddress(settings.host, settings.port, "--port"),
                ListenAddress(LOOPBACK, settings.nats_port, "--nats-port"),
                *(ListenAddress(LOOPBACK, number, "--health-port") for number in numbers),
            ]
        )
        self._health_ports = dict(zip(_HEALTHY, health, strict=True))

    @property
    def api_url(self) -> str:
        """The URL of the API on this machine."""
        return local_url("http", self._settings.host, self.port)

    @property
    def nats_url(self) -> str:
        """The URL of the broker."""
        return local_url("nats", LOOPBACK, self.nats_port)

    def broker(self) -> tuple[str, ...]:
        """The options of the broker."""
        data_dir = str(self._settings.data_dir)
        accounts = ("--accounts", str(self._access.accounts)) if self._settings.is_secure else ()
        return ("--nats-host", LOOPBACK, "--nats-port", str(self.nats_port), "--data-dir", data_dir, *accounts)

    def broker_config(self) -> tuple[str, ...]:
        """The options of `opstream broker-config`, which writes what the broker and all processes use."""
        return (*self._access.begin(self.nats_port), *_each("--actions", self._settings.modules))

    def use_broker_config(self) -> None:
        """Use what it wrote."""
        self._access.finish()

    def provision(self) -> tuple[str, ...]:
        """The options of `opstream provision`."""
        settings = self._settings
        return (
            *(*self._connecting("admin"), "--update", "--replicas", "1"),
            *(("--seal-catalog",) if settings.is_secure else ()),
            *("--max-body", str(settings.max_body), "--max-result", str(settings.max_result)),
            *(("--archive",) if settings.is_archiving else ()),
            *_each("--actions", settings.modules),
        )

    def services(self) -> Mapping[str, tuple[str, ...]]:
        """The options of each process of a service, by its name, in the order of their start."""
        settings = self._settings
        runner = (
            *self._connecting("runner"),
            *(*self._health("runner"), "--concurrency", str(settings.concurrency)),
            "--allow-schema-change",  # who tries things out changes types all the time
            *("--max-result", str(settings.max_result), "--drain", str(settings.drain)),
            *("--payload-store", settings.payload_store),
            *_each("--actions", settings.modules),
        )
        if not settings.is_apart:
            numbers = [(f"--{name}-health-port", str(self._health_ports[name])) for name in JOINT_SERVICES]
            ports = ("--health-host", LOOPBACK, *itertools.chain(*numbers))
            callbacks = self._callbacks()
            return {
                HUB: (*self._connecting(HUB), *self._api(), *callbacks, *self._webhooks(), *ports),
                "runner": runner,
            }
        return {
            "projector": (
                *self._connecting("projector"),
                *self._health("projector"),
                *("--payload-store", settings.payload_store),
            ),
            "api": (*self._connecting("api"), *self._api(), *self._callbacks(), *self._health("api")),
            "runner": runner,
            "webhooks": (
                *self._connecting("webhooks"),
                *self._webhooks(),
                *self._callbacks(),
                *self._health("webhooks"),
            ),
        }

    def logging(self, name: str) -> tuple[str, ...]:
        """The options of a process for its log. Lines of JSON are made of those that have no such format."""
        if name == BROKER_CONFIG:  # which has no log
            return ()
        is_json = self._settings.log_format == JSON and name not in _TEXT_ONLY
        return ("--log-level", self._settings.log_level, *(("--log-format", JSON) if is_json else ()))

    def readiness(self) -> Sequence[tuple[str, int]]:
        """Where each service answers whether it is ready: host and port."""
        ports = self._health_ports.values()
        return [(self._settings.host, self.port), *((LOOPBACK, port) for port in ports)]

    def metrics(self) -> Sequence[str]:
        """The addresses at which Prometheus finds the metrics of each service."""
        return [f"{LOOPBACK}:{port}" for port in self._health_ports.values()]

    def environment(self, name: str) -> Mapping[str, str]:
        """The environment of a process."""
        shelf = self._settings.data_dir.absolute() / "bookshelf"
        return {
            "BOOKSHELF_URL": shelf.as_uri(),
            **{name: value for name, value in os.environ.items() if name not in LOGIN_VARIABLES},  # its broker has none
            SUPERVISOR_VARIABLE: str(os.getpid()),
            "PYTHONUNBUFFERED": "1",
            **({_TRACING_VARIABLE: "1"} if self._settings.is_traced else {}),
            # Variables, since every user of the machine can read options. The secrets are for one child only.
            _INDEX_VARIABLE: self._settings.index or f"sqlite:{self._settings.data_dir.absolute() / 'index.db'}",
            _KEK_FILE_VARIABLE: (self._settings.kek_file or "") if name in _WITH_KEKS else "",
            _KEK_COMMAND_VARIABLE: (self._settings.kek_command or "") if name in _WITH_KEKS else "",
            _SECRETS_VARIABLE: ",".join(self._settings.callback_secrets) if name in _WITH_SECRETS else "",
        }

    def _connecting(self, role: str) -> tuple[str, ...]:
        key: tuple[str, ...] = ()
        if self._settings.is_secure:
            key = ("--nats-nkeys", self._access.keys) if role == HUB else ("--nats-nkey", self._access.key(role))
        return ("--nats", self.nats_url, "--connect-timeout", _CONNECT_TIMEOUT, *key)

    def _api(self) -> tuple[str, ...]:
        settings = self._settings
        return (
            *("--host", settings.host, "--port", str(self.port), "--max-body", str(settings.max_body)),
            *("--max-upload", str(settings.upload_limit)),
            *(("--public-url", settings.public_url) if settings.public_url else ()),
            *(() if settings.has_request_log else ("--no-request-log",)),
            *_each("--auth", settings.auth),
            *(("--auth-keys-file", str(settings.auth_keys_file)) if settings.auth_keys_file else ()),
            *(("--caller-requests", settings.caller_requests) if settings.caller_requests else ()),
            *_each(
                "--caller-open-operations", [settings.caller_open_operations] * bool(settings.caller_open_operations)
            ),
            *settings.jwt,
            *(("--insecure",) if settings.is_insecure else ()),
            *_each("--allowed-host", settings.allowed_hosts),
            *_each("--allowed-origin", settings.allowed_origins),
            *_each("--cors-origin", settings.cors_origins),
        )

    def _webhooks(self) -> tuple[str, ...]:
        config = self._settings.webhooks_config
        return (*(("--config", str(config)) if config else ()), *_each("--allow-private", self._settings.networks))

    def _health(self, name: str) -> tuple[str, ...]:
        return ("--health-host", LOOPBACK, "--health-port", str(self._health_ports[name]))

    def _callbacks(self) -> tuple[str, ...]:
        hosts = _each("--callback-host", self._settings.callback_hosts)
        return (*hosts, *(("--allow-http",) if self._settings.is_http_allowed else ()))


def _each(option: str, values: Sequence[Any]) -> tuple[str, ...]:
    return tuple(part for value in values for part in (option, str(value)))
