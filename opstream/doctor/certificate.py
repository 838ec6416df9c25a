"""When certificates end: that of the broker, as this connection saw it, and those in files of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nats.aio.client import Client


def certificate_ends(nc: Client, files: Mapping[str, str]) -> dict[str, datetime]:
    """Return the ends of all certificates that are known, by whose they are. Without TLS there are none.

    Args:
        nc: a connected client.
        files: paths of PEM files, by whose certificates they hold. One that can't be read is left out.
    """
    from cryptography import x509

    ends = {}
    seen = _peer_certificate(nc)
    if seen:
        ends["the broker's certificate"] = x509.load_der_x509_certificate(seen).not_valid_after_utc
    for whose, path in files.items():
        try:
            found = x509.load_pem_x509_certificates(Path(path).read_bytes())
        except (OSError, ValueError):
            continue
        ends[f"{whose} ({path})"] = min(one.not_valid_after_utc for one in found)
    return ends


def _peer_certificate(nc: Client) -> bytes:
    """Return the broker's certificate (DER); empty without TLS."""
    writer = getattr(nc._transport, "_io_writer", None)  # noqa: SLF001 - nats-py has no public way
    tls = None if writer is None else writer.get_extra_info("ssl_object")
    return b"" if tls is None else tls.getpeercert(binary_form=True) or b""
