"""The principal of a request: who sends it, for whom, and what it may do. Pure."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from opstream_schemas.errors import InvalidName
from opstream_schemas.operation.priority import Priority

from .scopes import Scopes

TENANT_PATTERN: Final = "[A-Za-z0-9._-]{1,64}"
"""Regular expression of a tenant, without anchors: what identity providers give their organizations fits."""
MAX_SUBJECT_LENGTH: Final = 256
"""Characters of a subject, as of the identity that a proxy names (`http.caller_identity`)."""

_TENANT_REGEX: Final = re.compile(TENANT_PATTERN)


class Owner(NamedTuple):
    """To whom an operation belongs. A rotated key, and a new token, keep both parts."""

    tenant: str
    subject: str


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who sends a request, as a key or a token proves it."""

    tenant: str
    """Empty for the operator's own."""
    subject: str
    """The user or service within the tenant."""
    scopes: Scopes
    expires_at: datetime | None = None
    """When the key or token ends; None for never."""
    key_id: str = ""
    """Id of the API key; empty for a token."""
    opens_wait: int = 0
    """Of the URL of a wait for a signal: the wait's stream sequence. 0 for anybody else."""
    uploads_for: str = ""
    """Of the URL of an upload: the mark of the caller that will submit it. Empty for anybody else."""
    most_priority: Priority | None = None
    """The highest priority that it may ask for; None for any."""

    @property
    def owner(self) -> Owner:
        """Return the owner of the operations that it submits."""
        return Owner(self.tenant, self.subject)


def check_tenant(value: str) -> str:
    """Return `value` if it is a tenant (`[A-Za-z0-9._-]{1,64}`), or empty for the operator's own.

    Raises:
        InvalidName: it is none.
    """
    if value and _TENANT_REGEX.fullmatch(value) is None:
        raise InvalidName(f"tenant {value[:80]!r} must be 1 to 64 characters of A-Z, a-z, 0-9, '.', '_' and '-'")
    return value


def check_subject(value: str) -> str:
    """Return `value` if it is a subject: 1 to 256 characters that can be printed.

    Raises:
        InvalidName: it is none.
    """
    if not 0 < len(value) <= MAX_SUBJECT_LENGTH or not value.isprintable():
        raise InvalidName(f"subject {value[:80]!r} must be 1 to {MAX_SUBJECT_LENGTH} characters that can be printed")
    return value
