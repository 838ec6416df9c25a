"""The text of a server's configuration: accounts, servers and certificates; nats-server itself checks it elsewhere."""

from __future__ import annotations

import re

import pytest

from opstream.broker_setup.server_config import Party, ServerAddress, accounts_config, server_config
from opstream_schemas.broker_access.permissions import ActionAccess, Role
from opstream_schemas.names import Kind

pytestmark = pytest.mark.unit

PARTIES = [
    Party(
        role=role,
        key=f"U{number}",
        actions=(ActionAccess(Kind("book", "upload")),) if role is Role.RUNNER else (),
        durable="mailer" if role is Role.SUBSCRIBER else "",
    )
    for number, role in enumerate(Role)
]


def test_each_subject_is_exported_once() -> None:
    """A second export of a subject would replace the first one, with the accounts that it names."""
    block = re.search(r"exports: \[\n(.*?)\n    \]", accounts_config(PARTIES), re.DOTALL)
    assert block is not None
    exported = re.findall(r'\{ (service|stream): ("[^"]+")', block[1])
    assert len(exported) == len(set(exported)) > 50
    assert '{ service: "$JS.API.STREAM.NAMES", accounts: [OPSTREAM_API, OPSTREAM_RUNNER,' in block[1]


def test_only_the_operator_is_in_the_account_of_the_streams() -> None:
    """Each role has an account and a key of its own."""
    text = accounts_config(PARTIES)
    users = dict(
        re.findall(r"^  (OPSTREAM\S*) \{\n(?:    jetstream: enabled\n)?    users: \[ (.*?) \]$", text, re.MULTILINE)
    )
    assert users.pop("OPSTREAM") == "{ nkey: U6 }"
    assert len(users) == len(set(users.values())) == 6
    assert "OPSTREAM_SUBSCRIBER_mailer" in users


def test_a_cluster_asks_for_more_than_a_certificate() -> None:
    """Servers know each other by a password, too: else each holder of a certificate could join, with every right."""
    servers = [ServerAddress(name=f"n{n}", host="::1", port=4222 + n, cluster_port=6222 + n) for n in range(3)]
    tls = {"cert_file": "a b.pem", "key_file": "k", "ca_file": "c"}
    text = server_config(servers[1], servers, store="/data", tls=tls, cluster_password="pass-word")
    assert 'authorization { user: route, password: "pass-word", timeout: 5 }' in text
    assert "verify: true" in text
    assert text.count("nats-route://route:pass-word@[::1]:622") == 3
    assert 'tls { cert_file: "a b.pem", key_file: "k", min_version: "1.2" }' in text
    single = server_config(servers[0], servers[:1], store="/data", tls={})
    assert "cluster" not in single
    assert "http" not in single
    seen = ServerAddress(name="n1", host="::1", port=4222, monitoring_port=8222)
    assert 'http: "[::1]:8222"' in server_config(seen, [seen], store="/data", tls={})
    assert "tls" not in single
