"""What a key looks like, and what is kept of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from opstream_api.access.keys.api_key import NOTE_LIMIT, create_key, decode_key, digest_of, encode_key
from opstream_schemas.errors import InvalidName

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def test_a_key_names_its_record_and_only_its_hash_is_kept() -> None:
    """The secret has 32 bytes, and is in no part of the record."""
    key, record = create_key(tenant="acme", subject="ci", scopes=["submit", "read"], now=NOW, expires=None)
    found = re.fullmatch(r"ops_([a-z0-9]+)_([A-Za-z0-9_-]{43})", key)
    assert found is not None
    assert record.id == found[1]
    assert record.sha256 == digest_of(key.encode()).hex()
    stored = encode_key(record).decode()
    assert found[2] not in stored
    assert decode_key(stored.encode()) == record


def test_no_two_keys_are_alike() -> None:
    """Neither the ids nor the secrets."""
    keys = [create_key(tenant="", subject="ci", scopes=["read"], now=NOW, expires=None)[0] for _ in range(200)]
    assert len({key.split("_")[1] for key in keys}) == len({key.split("_", 2)[2] for key in keys}) == 200


@pytest.mark.parametrize(
    "changes",
    [{"tenant": "a b"}, {"subject": ""}, {"subject": "a\nb"}, {"scopes": ["everything"]}],
    ids=["tenant", "subject", "line break", "scope"],
)
def test_a_key_for_nobody_in_particular_is_not_made(changes: dict[str, object]) -> None:
    """Whatever the record names must be valid before the key is printed."""
    wanted: dict[str, object] = {"tenant": "acme", "subject": "ci", "scopes": ["read"], **changes}
    with pytest.raises(InvalidName):
        create_key(now=NOW, expires=None, **wanted)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [{"sha256": "ab"}, {"id": "a_b"}, {"scopes": ("all",)}, {"tenant": "a\0b"}, {"subject": ""}],
    ids=["hash", "id", "scope", "tenant", "subject"],
)
def test_a_record_that_was_tampered_with_is_refused(changes: dict[str, object]) -> None:
    """A record with a part that means nothing is no key with fewer rights, but none."""
    _, record = create_key(tenant="acme", subject="ci", scopes=["read"], now=NOW, expires=None)
    with pytest.raises(InvalidName):
        decode_key(encode_key(msgspec.structs.replace(record, **changes)))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"id": 7}'])
def test_bytes_that_are_no_record_are_refused(data: bytes) -> None:
    """With the error of the caller's kind."""
    with pytest.raises(InvalidName):
        decode_key(data)


def test_when_a_key_is_usable() -> None:
    """Until it expires, and until it is revoked, also before that."""
    _, record = create_key(tenant="", subject="ci", scopes=["read"], now=NOW, expires=NOW + timedelta(days=1))
    assert record.is_usable(NOW)
    assert not record.is_usable(NOW + timedelta(days=1))
    assert not msgspec.structs.replace(record, revoked=NOW).is_usable(NOW)


def test_a_note_is_cut() -> None:
    """So that a table of keys stays one."""
    _, record = create_key(tenant="", subject="ci", scopes=["read"], now=NOW, expires=None, note="x" * 1000)
    assert len(record.note.encode()) <= NOTE_LIMIT
