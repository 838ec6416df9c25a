"""A verifier of bearer tokens, and a real provider on a loopback address that it trusts.

async with desk() as it:
    await it.verifier.verify(it.provider.token())
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from opstream_api.access.tokens.errors import TokenRefused
from opstream_api.access.tokens.jwt_settings import JwtSettings
from opstream_api.access.tokens.key_cache import KeyCache
from opstream_api.access.tokens.key_source import key_source
from opstream_api.access.tokens.token_verifier import TokenVerifier
from opstream_journal.runtime.conditions import Conditions
from tests.support.access.identity_provider import (
    AUDIENCE,
    KEYS,
    IdentityProvider,
    SigningKey,
)

FLOOR: Final = 30.0


class Desk:
    """A verifier, the provider that it trusts, and the time that its key cache sees."""

    def __init__(self, provider: IdentityProvider, **settings: Any) -> None:
        self.provider = provider
        self.time = 1000.0
        self.conditions = Conditions()
        self.settings = JwtSettings(issuer=provider.issuer, audiences=(AUDIENCE,), **settings)
        self.keys = KeyCache(
            key_source(self.settings),
            self.settings.algorithms,
            self.conditions,
            clock=lambda: self.time,
            floor=self.settings.refetch_floor,
        )
        self.verifier = TokenVerifier(self.settings, self.keys, now=time.time)

    async def refused(self, token: str) -> str:
        """Verify a token that must be refused, and return why it is."""
        with pytest.raises(TokenRefused) as refused:
            await self.verifier.verify(token)
        assert self.verifier.known(token) is None
        return str(refused.value)

    @property
    def fetches(self) -> int:
        """How often the provider was asked for its keys."""
        return self.provider.requests.count(KEYS)


@asynccontextmanager
async def desk(*keys: SigningKey, **settings: Any) -> AsyncIterator[Desk]:
    """A started desk with a provider of its own."""
    async with IdentityProvider(*keys) as provider:
        found = Desk(provider, **settings)
        try:
            await found.keys.start()
            yield found
        finally:
            await found.keys.stop()
