"""Files of key-encryption keys."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path


def write_keks(path: Path, *, count: int = 1, before: bool = False, copy_of: Path | None = None) -> Path:
    """Write new key-encryption keys, or those of another file, to a file, before what it has if asked to; return it."""
    lines = [base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(count)]
    if copy_of is not None:
        lines = copy_of.read_text(encoding="ascii").split()
    kept = path.read_text(encoding="ascii").split() if before else []
    path.write_text("\n".join([*lines, *kept]) + "\n", encoding="ascii")
    return path
