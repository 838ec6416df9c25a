"""Certificates that end soon, or have ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from opstream.doctor.certificate import certificate_ends
from opstream.doctor.monitoring_port import Monitored
from opstream.doctor.server_checks import CERTIFICATE_DAYS, check_certificates, check_servers, route_ends
from opstream.doctor.server_look import ServerLook
from opstream.doctor.system_findings import Level

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 30, tzinfo=UTC)
ZERO = timedelta(0)


def certificate(end: datetime) -> x509.Certificate:
    """A certificate that signs itself, until `end`."""
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(end - timedelta(days=400)).not_valid_after(end)
    return builder.sign(key, None)


@pytest.mark.parametrize(
    ("days", "level"), [(CERTIFICATE_DAYS + 1, Level.OK), (CERTIFICATE_DAYS, Level.WARNING), (-1, Level.CRITICAL)]
)
def test_the_end_of_a_certificate(tmp_path: Path, days: int, level: Level) -> None:
    """Of several in a file of this machine the one that ends first counts; a file that is missing has none."""
    end = NOW + timedelta(days=days)
    path = tmp_path / "own.pem"
    path.write_bytes(
        certificate(end + timedelta(days=1000)).public_bytes(Encoding.PEM) + certificate(end).public_bytes(Encoding.PEM)
    )
    ends = certificate_ends({"own": str(path), "missing": str(tmp_path / "missing.pem")})
    assert ends == {f"own ({path})": end}
    assert [one.level for one in check_certificates(ends, NOW)] == [level]


@pytest.mark.parametrize(
    ("days", "name", "level"), [(31, "Certificate", Level.OK), (30, "CertificateEnds", Level.WARNING)]
)
def test_the_certificate_of_a_server(days: int, name: str, level: Level) -> None:
    """The finding names the server, its address, the subject and the day."""
    look = ServerLook(url="nats://n2:4222", name="n2", subject="CN=broker", ends_at=NOW + timedelta(days=days))
    found = next(iter(check_servers([look], NOW)))
    assert (found.name, found.level) == (name, level)
    assert found.message.startswith("the certificate of n2 (nats://n2:4222) [CN=broker] ")
    assert f"{NOW + timedelta(days=days):%Y-%m-%d}" in found.message


def test_a_server_that_only_the_cluster_names() -> None:
    """That this machine can't reach it may be on purpose, so it is a note; of a given one it is a warning."""
    looks = [
        ServerLook(url="nats://n1:4222", silence="Connection refused"),
        ServerLook(url="nats://10.0.0.2:4222", silence="Connection refused", is_given=False),
    ]
    found = list(check_servers(looks, NOW))
    assert [(one.name, one.level) for one in found] == [
        ("ServerUnreachable", Level.WARNING),
        ("ServerUnreachable", Level.NOTE),
    ]


def test_the_certificate_for_routes() -> None:
    """Only the monitoring port shows it; it is named where it is another one than that for clients."""
    client, routes = "2027-11-30T00:00:00Z", "2026-12-01T00:00:00Z"
    monitored = [
        Monitored(url=url, varz={"tls_cert_not_after": client, "cluster": {"tls_cert_not_after": end}}, clock_lead=ZERO)
        for url, end in (("http://n1:8222", client), ("http://n2:8222", routes))
    ]
    assert route_ends(monitored) == {
        "the certificate for the routes of http://n2:8222": datetime(2026, 12, 1, tzinfo=UTC)
    }


def test_no_tls() -> None:
    """Without TLS there is nothing to find of certificates."""
    found = list(check_servers([ServerLook(url="nats://n1:4222", name="n1")], NOW))
    assert [one.name for one in found] == ["Servers"]
    assert list(check_certificates(certificate_ends({}), NOW)) == []
