"""The text of the configuration of nats-server: accounts with what each may do, and the servers. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from opstream_schemas.broker_access.logins import STREAMS_ACCOUNT, Login, account_name
from opstream_schemas.broker_access.permissions import API, ActionAccess, Grant, Role, Way, permissions

API_PREFIX: Final = "JS.ops"
"""The name under which a role's account imports JetStream's API. A mapping there lets clients use `$JS.API`."""
_ROUTE_FILES: Final = ("cert_file", "key_file", "ca_file")
_THRESHOLD: Final = "15s"
"""How long the broker keeps the way back of a request after its last answer; a pull has a heartbeat each 2.5 s."""


class Party(msgspec.Struct, frozen=True, kw_only=True):
    """A login: a role, perhaps one of several of its kind, and what it is for."""

    role: Role
    key: str
    """The public key of its user (`U…`)."""
    actions: tuple[ActionAccess, ...] = ()
    """Of a runner, and of an API."""
    durable: str = ""
    """Of a subscriber."""

    @property
    def account(self) -> str:
        """The name of its account."""
        return account_name(Login(self.role, self.durable))

    @property
    def grants(self) -> tuple[Grant, ...]:
        """What it may do."""
        return permissions(self.role, actions=self.actions, durable=self.durable)


def accounts_config(parties: Sequence[Party]) -> str:
    """Return the block of accounts, for a server's configuration."""
    others = [party for party in parties if party.role is not Role.ADMIN]
    operators = [party for party in parties if party.role is Role.ADMIN]
    lines = ["accounts {", f"  {STREAMS_ACCOUNT} {{", "    jetstream: enabled", _users(operators)]
    lines += ["    exports: [", *_exports(others), "    ]"]
    lines += ["    imports: [", *_served(others), "    ]", "  }"]
    for party in others:
        lines += [f"  {party.account} {{", _users([party])]
        lines += [f'    mappings: {{ "{API}.>": "{API_PREFIX}.>" }}']
        lines += ["    imports: [", *map(_import, (one for one in party.grants if one.way is not Way.SERVE)), "    ]"]
        served = [one for one in party.grants if one.way is Way.SERVE]
        lines += ["    exports: [", *(_export(one, [STREAMS_ACCOUNT]) for one in served), "    ]", "  }"]
    return "\n".join([*lines, "}", ""])


def _exports(parties: Iterable[Party]) -> Iterable[str]:
    """One entry for each subject, since a second one for the same subject would replace the first."""
    granted: dict[tuple[str, bool], tuple[Grant, list[str]]] = {}
    for party in parties:
        for grant in party.grants:
            if grant.way is not Way.SERVE:
                _, accounts = granted.setdefault((grant.subject, grant.way is Way.LISTEN), (grant, []))
                accounts.append(party.account)
    return [_export(grant, accounts) for grant, accounts in granted.values()]


def _export(grant: Grant, accounts: Sequence[str]) -> str:
    kind = "stream" if grant.way is Way.LISTEN else "service"
    many = f", response_type: stream, response_threshold: {_THRESHOLD}" if grant.way is Way.STREAM else ""
    return f"      {{ {kind}: {json.dumps(grant.subject)}{many}, accounts: [{', '.join(accounts)}] }}"


def _import(grant: Grant) -> str:
    kind = "stream" if grant.way is Way.LISTEN else "service"
    there = f"{{ account: {STREAMS_ACCOUNT}, subject: {json.dumps(grant.subject)} }}"
    is_api = grant.subject.startswith(f"{API}.")
    to = f", to: {json.dumps(API_PREFIX + grant.subject.removeprefix(API))}" if is_api else ""
    return f"      {{ {kind}: {there}{to} }}"


def _served(parties: Iterable[Party]) -> Iterable[str]:
    for party in parties:
        for grant in party.grants:
            if grant.way is Way.SERVE:
                yield f"      {{ service: {{ account: {party.account}, subject: {json.dumps(grant.subject)} }} }}"


def _users(parties: Iterable[Party]) -> str:
    return f"    users: [ {', '.join(f'{{ nkey: {party.key} }}' for party in parties)} ]"


class ServerAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server listens."""

    name: str
    host: str
    port: int
    cluster_port: int = 0
    monitoring_port: int = 0
    """On which it shows its state over HTTP, without a login; 0 for none."""


def server_config(
    server: ServerAddress,
    servers: Sequence[ServerAddress],
    *,
    store: str,
    tls: Mapping[str, str],
    cluster_password: str = "",
) -> str:
    """Return the configuration of one server, which includes the accounts from a file beside it.

    Args:
        server: the server.
        servers: all of the cluster, this one among them; one for no cluster.
        store: the folder of JetStream.
        tls: the files `cert_file`, `key_file` and `ca_file`; empty for none.
        cluster_password: with which servers of the cluster know each other.
    """
    lines = [
        "# Written by 'opstream broker-config'.",
        f"server_name: {json.dumps(server.name)}",
        f"listen: {json.dumps(_address(server.host, server.port))}",
        "max_payload: 8388608",
        "logtime_utc: true",
        f"jetstream {{ store_dir: {json.dumps(store)}, sync_interval: always }}  # an acknowledged event is on disk",
    ]
    if server.monitoring_port:
        lines.append(f"http: {json.dumps(_address(server.host, server.monitoring_port))}")
    if tls:
        lines.append(f'tls {{ {_files(tls, ("cert_file", "key_file"))}, min_version: "1.2" }}')
    if len(servers) > 1:
        routes = [f"nats-route://route:{cluster_password}@{_address(one.host, one.cluster_port)}" for one in servers]
        lines += [
            "cluster {",
            '  name: "opstream"',
            f"  listen: {json.dumps(_address(server.host, server.cluster_port))}",
            # A certificate alone would let each holder of one join as a server, with every right.
            f"  authorization {{ user: route, password: {json.dumps(cluster_password)}, timeout: 5 }}",
            *([f"  tls {{ {_files(tls, _ROUTE_FILES)}, verify: true, timeout: 5 }}"] if tls else []),
            f"  routes: [{', '.join(map(json.dumps, routes))}]",
            "}",
        ]
    return "\n".join([*lines, 'include "accounts.conf"', ""])


def _files(tls: Mapping[str, str], names: Iterable[str]) -> str:
    return ", ".join(f"{name}: {json.dumps(tls[name])}" for name in names)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
