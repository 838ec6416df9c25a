"""Why a bearer token is refused, and why the keys of its issuer are not there."""

from __future__ import annotations

from opstream_journal import JournalError


class TokenRefused(Exception):
    """A bearer token that is none of the issuer's, or not for this service, or not now. The text may be sent back."""


class KeySetRefused(JournalError):
    """What an identity provider, or a file, has instead of keys that can be used. An operator has to act."""


class NoUsableKeys(KeySetRefused):
    """What an identity provider, or a file, has is a key set, but none of its keys can verify a token here."""


class ProviderAway(Exception):
    """The identity provider did not answer, or not with success: later it may."""
