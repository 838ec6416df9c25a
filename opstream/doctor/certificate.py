"""When the certificates of files on this machine end. Those of the servers are looked at in `server_look.py`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path


def certificate_ends(files: Mapping[str, str]) -> dict[str, datetime]:
    """Return the ends of the certificates in files, by whose they are.

    Args:
        files: paths of PEM files, by whose certificates they hold. One that can't be read is left out.
    """
    from cryptography import x509

    ends = {}
    for whose, path in files.items():
        try:
            found = x509.load_pem_x509_certificates(Path(path).read_bytes())
        except (OSError, ValueError):
            continue
        ends[f"{whose} ({path})"] = min(one.not_valid_after_utc for one in found)
    return ends
