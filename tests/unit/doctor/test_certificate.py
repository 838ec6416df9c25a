"""Certificates that end soon, or have ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from opstream.doctor.broker_checks import CERTIFICATE_DAYS, check_certificates
from opstream.doctor.certificate import certificate_ends
from opstream.doctor.system_findings import Level

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def certificate(end: datetime) -> x509.Certificate:
    """A certificate that signs itself, until `end`."""
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(end - timedelta(days=400)).not_valid_after(end)
    return builder.sign(key, None)


class Tls:
    """A client whose broker has a certificate."""

    def __init__(self, seen: x509.Certificate | None) -> None:
        self._transport = self
        self._io_writer = self
        self._seen = seen

    def get_extra_info(self, _name: str) -> Any:
        """The TLS of the connection."""
        return self if self._seen is not None else None

    def getpeercert(self, *, binary_form: bool) -> bytes:
        """The broker's certificate."""
        assert binary_form
        assert self._seen is not None
        return self._seen.public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    ("days", "level"), [(CERTIFICATE_DAYS + 1, Level.OK), (CERTIFICATE_DAYS, Level.WARNING), (-1, Level.CRITICAL)]
)
def test_the_end_of_a_certificate(tmp_path: Path, days: int, level: Level) -> None:
    """The broker's, as the connection saw it, and one in a file of this machine."""
    end = NOW + timedelta(days=days)
    path = tmp_path / "own.pem"
    path.write_bytes(
        certificate(end + timedelta(days=1000)).public_bytes(Encoding.PEM) + certificate(end).public_bytes(Encoding.PEM)
    )
    client: Any = Tls(certificate(end))
    ends = certificate_ends(client, {"own": str(path), "missing": str(tmp_path / "missing.pem")})
    assert ends == {"the broker's certificate": end, f"own ({path})": end}
    found = list(check_certificates(ends, NOW))
    assert [one.level for one in found] == [level, level]


def test_no_tls() -> None:
    """Without TLS there is nothing to find."""
    client: Any = Tls(None)
    assert list(check_certificates(certificate_ends(client, {}), NOW)) == []
