"""Upload tokens: places and claims, what they hold together, and when they end."""

from __future__ import annotations

import msgspec
import pytest

from opstream_api.access.uploads.upload_token import MAX_CLAIM, UploadClaim, UploadPlace, UploadTokens, owner_mark

pytestmark = pytest.mark.unit

TOKENS = UploadTokens(b"s" * 32)
PLACE = UploadPlace(expires_at=2_000, key_id="k1", tenant="acme", owner=owner_mark("ann"))
CLAIM = UploadClaim(expires_at=2_000, unique=b"u" * 16, size=5, sha256=b"h" * 32, name="a.txt", media_type="text/plain")


def test_a_place_is_for_one_file_of_one_operation() -> None:
    """Until it expires; another installation makes others."""
    token = TOKENS.sign_place(PLACE, "op-1", "a.txt")
    assert TOKENS.open_place(token, "op-1", "a.txt", 1_999) == PLACE
    assert TOKENS.open_place(token, "op-1", "a.txt", 2_000) is None
    assert TOKENS.open_place(token, "op-2", "a.txt", 1_999) is None
    assert TOKENS.open_place(token, "op-1", "b.txt", 1_999) is None
    assert UploadTokens(b"t" * 32).open_place(token, "op-1", "a.txt", 1_999) is None
    assert TOKENS.open_claim(token, "op-1", "a.txt") is None


def test_a_claim_is_for_one_operation_and_owner() -> None:
    """It names the payload below that operation, and nothing else."""
    token = TOKENS.sign_claim(CLAIM, "stored", PLACE.owner)
    assert TOKENS.open_claim(token, "stored", PLACE.owner) == CLAIM
    assert TOKENS.open_claim(token, "other", PLACE.owner) is None
    assert TOKENS.open_claim(token, "stored", owner_mark("bob")) is None
    assert CLAIM.attachment("stored").payload.uri == f"payload:stored/{b'u'.hex() * 16}"


def test_the_longest_names_fit() -> None:
    """A claim of the longest name, media type and size is not longer than what is looked at."""
    long = msgspec.structs.replace(
        CLAIM, name="n" * 128, media_type=f"{'a' * 64}/{'b' * 64}; charset={'c' * 32}", size=2**38
    )
    token = TOKENS.sign_claim(long, "s" * 64, owner_mark("x" * 256))
    assert len(token) <= MAX_CLAIM
    assert TOKENS.open_claim(token, "s" * 64, owner_mark("x" * 256)) == long
