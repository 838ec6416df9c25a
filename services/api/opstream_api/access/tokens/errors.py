"""Why a bearer token is refused, and why the keys of its issuer are not there."""

from __future__ import annotations

from opstream_journal import JournalError
from opstream_schemas.logs.access_log import DenialReason


class TokenRefused(Exception):
    """A bearer token that is none of the issuer's, or not for this service, or not now. The text may be sent back.

    Args:
        text: why, as the rest of a sentence about the token.
        reason: the same in a word, for logs.
    """

    def __init__(self, text: str, reason: DenialReason = DenialReason.INVALID_TOKEN) -> None:
        super().__init__(text)
        self.reason = reason


class KeySetRefused(JournalError):
    """What an identity provider, or a file, has instead of keys that can be used. An operator has to act."""


class NoUsableKeys(KeySetRefused):
    """What an identity provider, or a file, has is a key set, but none of its keys can verify a token here."""


class ProviderAway(Exception):
    """The identity provider did not answer, or not with success: later it may."""
