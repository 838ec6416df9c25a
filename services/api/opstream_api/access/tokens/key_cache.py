"""The issuer's keys in memory: fetched for a token that names an unknown one, and now and then; kept if it is away."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Final

from opstream_journal.jetstream.connection import end_task
from opstream_journal.runtime.conditions import Conditions

from .errors import KeySetRefused, NoUsableKeys, ProviderAway
from .key_set import KeySet, VerificationKey, parse_key_set
from .key_source import KeySource

logger = logging.getLogger(__name__)

MAX_AGE: Final = 600.0
"""Seconds after which keys are fetched again, so that a key that the provider has withdrawn ends here, too."""
MAX_KEPT: Final = 86_400.0
"""Seconds for which keys are kept that can't be fetched again: perhaps an attacker keeps the provider away."""
FIRST_FLOOR: Final = 2.0
"""Seconds between two fetches while there are no keys yet: without them no token can be verified."""
CONDITION: Final = "IdentityProviderAway"


class KeyCache:
    """The keys of one issuer.

    A fetch is shared by all that need it, and begins at most once in `floor` seconds, however many tokens with invented
    key ids come (an attacker would make the service flood its provider otherwise).

    Args:
        source: of the key set.
        algorithms: those that are taken.
        conditions: `/readyz` shows there that the keys can't be fetched.
        clock: monotonic seconds.
        floor: seconds between two fetches.
    """

    def __init__(
        self,
        source: KeySource,
        algorithms: Collection[str],
        conditions: Conditions,
        *,
        clock: Callable[[], float],
        floor: float,
    ) -> None:
        self._source = source
        self._algorithms = algorithms
        self._conditions = conditions
        self._clock = clock
        self._floor = floor
        self._keys: KeySet | None = None
        self._digest = b""
        self._is_failing = False
        self._fetched_at = 0.0
        self._tried_at: float | None = None
        self._fetching: asyncio.Task[None] | None = None
        self.generation = 0
        """Grows each time that the key set is another one than before."""

    async def start(self) -> None:
        """Fetch the keys. A provider that is away is no error: its tokens are refused until it is back.

        Raises:
            KeySetRefused: what is there are no keys. An operator has to act.
        """
        self._tried_at = self._clock()
        try:
            await self._load()
        except ProviderAway as error:
            self._report(error)

    async def stop(self) -> None:
        """End a fetch that is under way."""
        if self._fetching is not None:
            await end_task(self._fetching)

    @property
    def trusted_seconds(self) -> float:
        """Return for how many seconds more the keys are kept if they can't be fetched again."""
        return self._fetched_at + MAX_KEPT - self._clock()

    async def find(self, key_id: str | None, algorithm: str) -> Sequence[VerificationKey]:
        """Return the keys that may have signed a token; see `KeySet.candidates`.

        Raises:
            ProviderAway: no key was fetched yet, or the last time was too long ago.
        """
        if self._keys is not None and self.trusted_seconds <= 0:
            self._replace(None)
            if self._is_failing:  # otherwise there was no token all the time, and none has asked for keys
                self._report(ProviderAway("the last fetch that succeeded is a day ago"))
        found = self._candidates(key_id, algorithm)
        if found:
            if self._is_failing or self._clock() - self._fetched_at >= MAX_AGE:
                self._begin_fetch()  # the token does not wait for it
            return found
        self._begin_fetch()
        if self._fetching is not None:
            # Shielded: a client that goes away ends only its own wait.
            await asyncio.shield(self._fetching)
        if self._keys is None:
            raise ProviderAway("the keys of the issuer are not there")
        return self._candidates(key_id, algorithm)

    def _candidates(self, key_id: str | None, algorithm: str) -> Sequence[VerificationKey]:
        return self._keys.candidates(key_id, algorithm) if self._keys is not None else ()

    def _begin_fetch(self) -> None:
        """Begin a fetch, unless one is under way or the last one began too short a time ago."""
        if self._fetching is not None:
            return
        now = self._clock()
        floor = self._floor if self._keys is not None else min(FIRST_FLOOR, self._floor)
        if self._tried_at is not None and now - self._tried_at < floor:
            return
        self._tried_at = now
        self._fetching = asyncio.create_task(self._fetch(), name="keys of the issuer")

    async def _fetch(self) -> None:
        try:
            await self._load()
        except (ProviderAway, KeySetRefused) as error:
            self._report(error)  # what was fetched before stays, unless the provider has withdrawn it
        except Exception as error:
            logger.exception("the keys of the issuer can't be fetched")
            self._report(error)
        finally:
            self._fetching = None

    async def _load(self) -> None:
        data = await self._source.load()
        digest = hashlib.sha256(data).digest()
        if digest != self._digest:
            try:
                keys = parse_key_set(data, self._algorithms)
            except NoUsableKeys:
                # The provider says so, hence the keys of before are withdrawn. It is read again at the next fetch.
                if self._keys is not None and self._digest:
                    self._replace(KeySet())
                self._fetched_at = self._clock()
                raise
            self._replace(keys, digest)
        self._fetched_at = self._clock()
        self._is_failing = False
        self._conditions.resolve(CONDITION)

    def _replace(self, keys: KeySet | None, digest: bytes = b"") -> None:
        self._keys, self._digest = keys, digest
        self.generation += 1

    def _report(self, error: Exception) -> None:
        self._is_failing = True
        # A digest is that of keys that can be used.
        kept = "tokens of the keys that are known are accepted" if self._digest else "no token is accepted"
        self._conditions.report(
            CONDITION,
            f"the keys of the issuer can't be fetched, {kept}: {error}",
            "see that this service reaches the identity provider (--jwt-issuer, --jwt-jwks-url), or that the file of "
            "--jwt-jwks-file has its keys",
        )
