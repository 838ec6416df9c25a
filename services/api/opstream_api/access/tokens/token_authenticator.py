"""Bearer tokens at the door: an `Authenticator`, and what it needs to begin and to end."""

from __future__ import annotations

import logging
import time
from typing import Final

from opstream_api.access.denials.denial import Denial
from opstream_api.access.principal import Principal
from opstream_api.access.resource_metadata import challenge
from opstream_api.errors import ApiError, unauthenticated
from opstream_journal.runtime.conditions import Conditions
from opstream_schemas.errors import ErrorCode
from opstream_schemas.logs.access_log import DenialReason

from .errors import ProviderAway, TokenRefused
from .jwt_settings import JwtSettings
from .key_cache import KeyCache
from .key_source import key_source
from .token_verifier import TokenVerifier

logger = logging.getLogger(__name__)

_DOTS: Final = 2
"""In the compact form of a JSON Web Token (RFC 7515, 7.1). An API key has none."""


class TokenAuthenticator:
    """Recognizes the bearer tokens of one issuer.

    Args:
        settings: which tokens are taken.
        conditions: `/readyz` shows there that the keys can't be fetched.
        metadata_url: of the document of RFC 9728, for the challenge of a 401; empty if its address is not known.
    """

    def __init__(self, settings: JwtSettings, conditions: Conditions, *, metadata_url: str = "") -> None:
        logging.getLogger("httpcore").setLevel(logging.WARNING)  # at DEBUG it has a line for each header
        self._keys = KeyCache(
            key_source(settings),
            settings.algorithms,
            conditions,
            clock=time.monotonic,
            floor=settings.refetch_floor,
        )
        self._verifier = TokenVerifier(settings, self._keys, now=time.time)
        self._metadata_url = metadata_url

    async def start(self) -> None:
        """Fetch the keys of the issuer.

        Raises:
            KeySetRefused: there are none that can be used. An issuer that is away is no error.
        """
        await self._keys.start()

    async def stop(self) -> None:
        """End a fetch that is under way."""
        await self._keys.stop()

    def takes(self, credentials: bytes) -> bool:
        """Return True if credentials have the form of a JSON Web Token."""
        return credentials.count(b".") == _DOTS

    def denial(self, _credentials: bytes) -> Denial:
        """Return why a token was refused, if its `ApiError` does not say: it proves nothing, so not whose it is."""
        return Denial(DenialReason.INVALID_TOKEN)

    async def authenticate(self, credentials: bytes) -> Principal | None:
        """Return the principal of a token.

        Raises:
            ApiError: `Unauthenticated`, with the reason, since each client knows what is in its own token;
                `IdentityProviderUnavailable`: no token can be verified now.
        """
        token = credentials.decode("latin-1")
        known = self._verifier.known(token)
        if known is not None:
            return known
        try:
            return await self._verifier.verify(token)
        except TokenRefused as error:
            logger.debug("a bearer token is refused: %s", error)
            raise unauthenticated(challenge(self._metadata_url, refused=str(error)), error.reason) from error
        except ProviderAway as error:
            message = "the keys of the identity provider are not there, so no token can be verified now: try again"
            raise ApiError(ErrorCode.IDENTITY_PROVIDER_UNAVAILABLE, message) from error
