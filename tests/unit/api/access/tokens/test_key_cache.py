"""The keys of a real provider on a loopback address: when they are fetched, how long they count, when they end."""

from __future__ import annotations

import asyncio
import time

import pytest

from opstream_api.access.tokens.errors import KeySetRefused, ProviderAway
from opstream_api.access.tokens.key_cache import CONDITION, MAX_AGE, MAX_KEPT
from opstream_api.access.tokens.token_verifier import TokenVerifier
from tests.support.access.identity_provider import (
    DISCOVERY,
    KEYS,
    IdentityProvider,
    SigningKey,
)
from tests.support.access.verifier_desk import FLOOR, Desk, desk
from tests.support.system.wait import eventually

pytestmark = pytest.mark.unit


async def test_many_unknown_keys_are_one_fetch() -> None:
    """However many tokens with invented key ids come, the provider is asked once in the floor's time."""
    async with desk() as it:
        it.time += FLOOR
        invented = [SigningKey(f"k-{number}") for number in range(20)]
        tokens = [key.sign(it.provider.claims()) for key in invented]
        reasons = await asyncio.gather(*(it.refused(token) for token in tokens))
        assert set(reasons) == {"no key of the issuer fits it"}
        assert it.fetches == 2
        it.time += FLOOR - 0.1
        await asyncio.gather(*(it.refused(token) for token in tokens))
        assert it.fetches == 2
        it.time += 0.1
        await it.refused(tokens[0])
        assert it.fetches == 3


async def test_a_new_key_is_found_and_an_old_one_ends() -> None:
    """The provider rotates: a token of the new key is taken at once, and known ones of the old key are not any more."""
    async with desk() as it:
        old = it.provider.token()
        await it.verifier.verify(old)
        it.provider.keys = [SigningKey("k2")]
        it.time += FLOOR
        assert (await it.verifier.verify(it.provider.token())).subject == "billing"
        assert it.verifier.known(old) is None
        assert "no key" in await it.refused(old)


async def test_a_withdrawn_key_ends_although_no_new_one_is_asked_for() -> None:
    """The keys are fetched again in a while, beside the request that finds that they are old."""
    async with desk(SigningKey("k1"), SigningKey("k2")) as it:
        first, second = it.provider.keys
        stolen = first.sign(it.provider.claims())
        await it.verifier.verify(stolen)
        it.provider.keys = [second]
        it.time += MAX_AGE
        await it.verifier.verify(second.sign(it.provider.claims()))
        await eventually(lambda: it.keys.generation == 2)
        assert it.verifier.known(stolen) is None
        assert "no key" in await it.refused(stolen)


@pytest.mark.parametrize("is_empty", [True, False])
async def test_a_withdrawn_key_ends_although_no_other_can_be_used(is_empty: bool) -> None:
    """The provider says that the key is gone: an empty set, or keys of other algorithms, replace it as well."""
    async with desk(algorithms=("ES256",)) as it:
        (stolen_key,) = it.provider.keys
        stolen = it.provider.token()
        await it.verifier.verify(stolen)
        it.provider.keys = [] if is_empty else [SigningKey("k2", algorithm="EdDSA")]
        it.time += MAX_AGE
        await it.verifier.verify(stolen_key.sign(it.provider.claims(jti="another")))
        await eventually(lambda: it.keys.generation == 2)
        assert it.verifier.known(stolen) is None
        assert "no key" in await it.refused(stolen)
        for _ in range(2):  # the same answer once more is still none that helps
            it.time += FLOOR
            assert "no key" in await it.refused(stolen)
            (condition,) = it.conditions.current
            assert (condition.name, condition.is_blocking) == (CONDITION, False)
            assert "no token is accepted" in condition.message
        assert it.keys.generation == 2
        it.provider.keys = [stolen_key]
        it.time += FLOOR
        await it.verifier.verify(stolen)
        assert it.conditions.current == []


async def test_the_service_does_not_start_with_an_empty_set() -> None:
    """There it is a mistake that an operator can see at once."""
    async with IdentityProvider() as provider:
        provider.keys = []
        with pytest.raises(KeySetRefused, match="none of the issuer's 0 keys"):
            await Desk(provider).keys.start()


@pytest.mark.parametrize("document", [None, b"<html>", b"{}", b'{"keys": 7}'])
async def test_keys_that_no_fetch_confirms_end_after_a_day(document: bytes | None) -> None:
    """The provider is away, or has no key set that can be read: perhaps an attacker keeps it away."""
    async with desk() as it:
        began = it.time
        verifier = TokenVerifier(it.settings, it.keys, now=lambda: time.time() + it.time - began)
        token = it.provider.token(exp=int(time.time()) + 10 * 86_400)
        if document is None:
            await it.provider.stop()
        else:
            it.provider.replies[KEYS] = (200, document)
        it.time += MAX_KEPT - 1
        await verifier.verify(token)
        await eventually(lambda: it.conditions.current != [])
        assert it.keys.trusted_seconds == 1
        it.time += 1
        assert verifier.known(token) is None
        with pytest.raises(ProviderAway):
            await verifier.verify(token)
        (condition,) = it.conditions.current
        assert "no token is accepted" in condition.message
        it.provider.replies.clear()
        if document is None:
            await it.provider.start(it.provider.port)
        it.time += 2.0
        await verifier.verify(token)
        assert it.conditions.current == []


async def test_a_token_that_names_no_key() -> None:
    """Each key that fits is tried, if there are few."""
    one, other = SigningKey(None), SigningKey(None)
    async with desk(one, other) as it:
        await it.verifier.verify(one.sign(it.provider.claims()))
        await it.verifier.verify(other.sign(it.provider.claims()))
        assert "signature" in await it.refused(SigningKey(None).sign(it.provider.claims()))
        it.provider.keys += [SigningKey(None), SigningKey(None), SigningKey(None)]
        it.time += FLOOR
        await it.keys.start()
        assert "no key" in await it.refused(one.sign(it.provider.claims()))


async def test_a_provider_that_is_away_changes_nothing() -> None:
    """What was fetched stays, also for tokens that are new; `/readyz` shows it until the provider is back."""
    async with desk() as it:
        await it.provider.stop()
        it.time += MAX_AGE
        await it.verifier.verify(it.provider.token())
        assert "no key" in await it.refused(SigningKey("k2").sign(it.provider.claims()))
        (condition,) = it.conditions.current
        assert (condition.name, condition.is_blocking) == (CONDITION, False)
        assert "--jwt-issuer" in condition.next_step
        await it.provider.start(it.provider.port)
        it.time += FLOOR
        await it.refused(SigningKey("k2").sign(it.provider.claims()))
        assert it.conditions.current == []


async def test_a_provider_that_was_never_there() -> None:
    """The service starts all the same. Without keys no token can be judged, which is no refusal."""
    async with IdentityProvider() as provider:
        it = Desk(provider)
        await provider.stop()
        await it.keys.start()
        with pytest.raises(ProviderAway):
            await it.verifier.verify(provider.token())
        await provider.start(provider.port)
        it.time += 2.0
        assert (await it.verifier.verify(provider.token())).subject == "billing"
        await it.keys.stop()


async def test_a_request_that_goes_away_ends_no_fetch() -> None:
    """Others wait for the same one."""
    async with desk() as it:
        it.time += FLOOR
        it.provider.hold = asyncio.Event()
        it.provider.keys.append(SigningKey("k2"))
        token = it.provider.keys[1].sign(it.provider.claims())
        leaving, staying = (asyncio.create_task(it.verifier.verify(token)) for _ in range(2))
        await eventually(lambda: it.provider.requests.count(DISCOVERY) == 2)
        leaving.cancel()
        it.provider.hold.set()
        assert (await staying).subject == "billing"
        assert it.fetches == 2
