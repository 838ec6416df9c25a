"""Which keys the registry takes, and which requests it ends."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from opstream_api.access.access_end import AccessEnds
from opstream_api.access.keys.api_key import ApiKeyRecord, create_key, digest_of, encode_key
from opstream_api.access.keys.key_registry import KeyRegistry
from opstream_api.access.principal import Principal

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 30, tzinfo=UTC)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = NOW.timestamp()

    def __call__(self) -> float:
        return self.now


class Rig:
    """A registry with a clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.ends = AccessEnds(self.clock)
        self.registry = KeyRegistry(self.ends, self.clock)
        self.ends.check_with(self.registry.is_current)

    async def ask(self, key: str | bytes) -> Principal | None:
        credentials = key if isinstance(key, bytes) else key.encode()
        return await self.registry.authenticate(credentials)


def made(subject: str = "ci", *, expires: datetime | None = None) -> tuple[str, ApiKeyRecord]:
    """A new key."""
    return create_key(tenant="acme", subject=subject, scopes=["read"], now=NOW, expires=expires)


async def test_a_key_is_taken_for_its_principal() -> None:
    """Several live keys each for their own."""
    rig = Rig()
    one, other = made("ann"), made("bob")
    rig.registry.use([one[1], other[1]])
    first, second = await rig.ask(one[0]), await rig.ask(other[0])
    assert first is not None
    assert second is not None
    assert (first.subject, first.key_id, second.subject) == ("ann", one[1].id, "bob")


async def test_wrong_keys_are_not_taken() -> None:
    """Neither another secret, nor one that is cut, longer, empty or swapped, nor the stored hash itself."""
    rig = Rig()
    (key, record), (other, _) = made(), made()
    rig.registry.use([record])
    prefix = f"ops_{record.id}_"
    secret = key.removeprefix(prefix)
    wrong = [
        *(other, key[:-1], f"{key}x", prefix, f"ops_{record.id}", "ops_", "ops__", f"ops__{secret}"),
        *(f"{prefix}{other.split('_', 2)[2]}", f"{prefix}{record.sha256}", f"OPS_{record.id}_{secret}"),
        *(f"{prefix}{secret}\0", f" {key}"),
    ]
    for one in wrong:
        assert await rig.ask(one) is None, one
    assert await rig.ask(b"ops_\xff\xfe_\xff") is None
    assert await rig.ask(key) is not None


async def test_an_unknown_id_is_never_taken_whatever_its_hash() -> None:
    """The digest that stands for an unknown key is that of no bytes; and it is expired besides."""
    rig = Rig()
    assert await rig.ask(b"") is None
    assert digest_of(b"") == rig.registry._unknown.digest
    assert rig.registry._unknown.expires < 0


async def test_an_expired_key_is_not_taken() -> None:
    """From the very moment on."""
    rig = Rig()
    key, record = made(expires=NOW + timedelta(seconds=10))
    rig.registry.use([record])
    assert await rig.ask(key) is not None
    rig.clock.now += 10
    assert await rig.ask(key) is None


async def test_a_revoked_key_is_not_taken() -> None:
    """At once, while another key of the same subject stays."""
    rig = Rig()
    (key, record), (other, kept) = made(), made()
    rig.registry.use([record, kept])
    rig.registry.use([msgspec.structs.replace(record, revoked=NOW), kept])
    assert await rig.ask(key) is None
    assert await rig.ask(other) is not None


async def test_a_record_under_a_foreign_id_is_not_taken(caplog: pytest.LogCaptureFixture) -> None:
    """A writer of one key of the bucket can't make another one valid; a broken record harms no other."""
    rig = Rig()
    (key, record), (other, kept) = made(), made()
    rig.registry.use_encoded({"elsewhere": encode_key(record), "broken": b"{", kept.id: encode_key(kept)})
    assert await rig.ask(key) is None
    assert await rig.ask(other) is not None
    assert "elsewhere" in caplog.text
    assert "broken" in caplog.text


async def test_a_wait_ends_when_its_key_is_revoked() -> None:
    """Its own, and no other's; nor does reading the same records again end one."""
    rig = Rig()
    (key, record), (other, kept) = made(), made()
    rig.registry.use([record, kept])
    principal, bystander = await rig.ask(key), await rig.ask(other)
    assert principal is not None
    assert bystander is not None
    with rig.ends.watch(principal) as ended, rig.ends.watch(bystander) as stays:
        rig.registry.use([record, kept])
        assert not ended.done()
        rig.registry.use([kept])
        assert ended.done()
        assert not stays.done()


async def test_a_wait_that_begins_after_the_revocation_ends_at_once() -> None:
    """The key was taken at the door, and is gone before the wait begins."""
    rig = Rig()
    key, record = made()
    rig.registry.use([record])
    principal = await rig.ask(key)
    assert principal is not None
    rig.registry.use([])
    with rig.ends.watch(principal) as ended:
        assert ended.done()


async def test_a_wait_ends_when_its_key_gets_other_rights() -> None:
    """The request was allowed by scopes that the key has no more."""
    rig = Rig()
    key, record = made()
    rig.registry.use([record])
    principal = await rig.ask(key)
    assert principal is not None
    with rig.ends.watch(principal) as ended:
        rig.registry.use([msgspec.structs.replace(record, scopes=("submit",))])
        assert ended.done()


async def test_a_wait_ends_when_its_key_expires() -> None:
    """By a timer, not by the next look at the records."""
    rig = Rig()
    key, record = made(expires=NOW + timedelta(seconds=0.05))
    rig.registry.use([record])
    principal = await rig.ask(key)
    assert principal is not None
    with rig.ends.watch(principal) as ended:
        async with asyncio.timeout(5):
            await ended


async def test_a_refused_key_has_a_reason_that_only_its_bearer_can_prove() -> None:
    """The access log names a caller only if the secret was right; a stranger's text is never in it."""
    rig = Rig()
    expired, revoked = made("ann", expires=NOW), made("bob")
    live = made("cid")
    rig.registry.use([expired[1], msgspec.structs.replace(revoked[1], revoked=NOW), live[1]])
    denials = {
        text: rig.registry.denial(text.encode())
        for text in (expired[0], revoked[0], live[0] + "x", revoked[0] + "x", "ops_zzz_secret", "ops_")
    }
    shown = [(one.reason, one.principal.subject if one.principal else "", one.key_id) for one in denials.values()]
    assert shown == [
        ("expired-key", "ann", ""),
        ("revoked-key", "bob", ""),
        ("wrong-secret", "", live[1].id),
        ("wrong-secret", "", revoked[1].id),
        ("unknown-key", "", ""),
        ("unknown-key", "", ""),
    ]
