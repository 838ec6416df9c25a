"""Whether the access of a request has ended since the door let it pass."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from opstream_api.access.access_end import AccessEnds
from opstream_api.access.principal import Principal
from opstream_api.access.scopes import Scopes

pytestmark = pytest.mark.unit


def principal(key_id: str, end: float | None) -> Principal:
    """One that may submit until `end`, in Unix seconds."""
    expires_at = None if end is None else datetime.fromtimestamp(end, tz=UTC)
    return Principal(tenant="", subject="ci", scopes=Scopes.parse(["submit"]), expires_at=expires_at, key_id=key_id)


@pytest.mark.parametrize("key_id", ["k1", ""])
def test_access_ends_when_key_or_token_expires(key_id: str) -> None:
    """At that moment."""
    now = 1000.0
    ends = AccessEnds(lambda: now)
    ends.check_with(lambda _: True)
    assert not ends.has_ended(principal(key_id, None))
    assert not ends.has_ended(principal(key_id, 1001))
    assert ends.has_ended(principal(key_id, 1000))


def test_access_ends_when_the_key_is_not_in_use_any_more() -> None:
    """A bearer token has no key, so nothing but its end ends it."""
    ends = AccessEnds(lambda: 1000.0)
    ends.check_with(lambda _: False)
    assert ends.has_ended(principal("k1", None))
    assert not ends.has_ended(principal("", 1001))
