"""Signal tokens: who has one may send one signal to one wait of one operation, and nothing else (docs/adr/0071). Pure.

A third party, such as a payment provider, gets one in the URL of the wait. As of a status token, its code holds all
parts together, and no process stores anything. It is worth nothing once the wait is over.
"""

from __future__ import annotations

from typing import Final

import msgspec

from .sealed_grants import SealedGrants

_PURPOSE: Final = b"opstream signal token, version 1"
"""With another one the same secret makes codes that mean something else."""


class SignalGrant(msgspec.Struct, frozen=True, array_like=True):
    """What a signal token says of itself."""

    wait: int
    """Stream sequence of the event that began the wait."""
    expires_at: int
    """Unix seconds: when the wait is over without the signal."""
    key_id: str
    """The API key of the caller that has read the URL: the token ends with that. Empty for a bearer token."""
    tenant: str
    """To whom the operation belongs."""


class SignalTokens:
    """Makes and verifies signal tokens.

    Args:
        secret: of the installation, the same in each API process. With another one, all tokens end.
    """

    def __init__(self, secret: bytes) -> None:
        self._grants = SealedGrants(secret, _PURPOSE, SignalGrant)

    def sign(self, grant: SignalGrant, operation_id: str, signal: str) -> str:
        """Return a token for a signal to an operation, of which the id is the one in the URL."""
        return self._grants.seal(grant, operation_id, signal)

    def verify(self, token: str, operation_id: str, signal: str, now: float) -> SignalGrant | None:
        """Return what a token grants; None if it was not made here, is for something else, or has expired.

        Args:
            token: as the URL has it.
            operation_id: as the URL has it.
            signal: the name, as the URL has it.
            now: Unix seconds.
        """
        grant = self._grants.open(token, operation_id, signal)
        return grant if grant is not None and now < grant.expires_at else None
