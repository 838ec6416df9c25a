"""Status tokens: who has one may read the status of one operation, and nothing else, until it expires. Pure.

A service that submits gets one in `Operation-Location` if it asks (`Prefer: status-token`), and gives that URL to a
browser, which then needs no key. Its authentication code holds key, tenant and end together with the operation's id, so
none of them can be exchanged for another. It contains no secret but itself.
"""

from __future__ import annotations

from typing import Final

import msgspec

from opstream_api.http.conditional_headers import MAX_STATUS_TOKEN_SECONDS

from .sealed_grants import SealedGrants

STATUS_TOKEN_PARAMETER: Final = "token"  # noqa: S105 - a name
"""Query parameter of `Operation-Location` that has it."""
CLOCK_LEEWAY: Final = 60
"""Seconds by which the clock of the process that gave a token may be ahead of that of the one that reads it."""

_PURPOSE: Final = b"opstream status token, version 1"
"""With another one the same secret makes codes that mean something else."""


class StatusGrant(msgspec.Struct, frozen=True, array_like=True):
    """What a status token says of itself."""

    expires_at: int
    """Unix seconds."""
    key_id: str
    """The API key that asked for it: the token ends with that. Empty if a bearer token asked."""
    tenant: str
    """To whom the operation belongs."""


class StatusTokens:
    """Makes and verifies status tokens.

    Args:
        secret: of the installation, the same in each API process. With another one, all tokens end.
    """

    def __init__(self, secret: bytes) -> None:
        self._grants = SealedGrants(secret, _PURPOSE, StatusGrant)

    def sign(self, grant: StatusGrant, operation_id: str) -> str:
        """Return a token for an operation, of which the id is the one in the URL."""
        return self._grants.seal(grant, operation_id)

    def verify(self, token: str, operation_id: str, now: float) -> StatusGrant | None:
        """Return what a token grants; None if it was not made here, is for another operation, or has expired.

        None, too, if it lasts longer than any that is given: it was made with a secret that has leaked.

        Args:
            token: as the URL has it.
            operation_id: as the URL has it.
            now: Unix seconds.
        """
        grant = self._grants.open(token, operation_id)
        latest = now + MAX_STATUS_TOKEN_SECONDS + CLOCK_LEEWAY
        return grant if grant is not None and now < grant.expires_at <= latest else None
