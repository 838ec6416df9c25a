"""Status tokens at the door: who gets one, what ends it, and what of it is seen behind the door."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from litestar.types import Message

from opstream_api.access.principal import Principal
from opstream_api.access.scopes import Scopes
from opstream_api.access.signal_access import SignalAccess
from opstream_api.access.status_access import (
    MAX_UNREVOCABLE_SECONDS,
    StatusAccess,
    private_answers,
    take_status_token,
)
from opstream_api.access.token_keys import TokenKeys
from opstream_api.access.tokens.signal_token import SignalTokens
from opstream_api.access.tokens.status_token import CLOCK_LEEWAY, StatusGrant, StatusTokens
from opstream_api.access.uploads.upload_access import UploadAccess
from opstream_api.access.uploads.upload_token import UploadTokens
from opstream_api.errors import ApiError, operation_not_found
from opstream_api.http.conditional_headers import MAX_STATUS_TOKEN_SECONDS

pytestmark = pytest.mark.unit

NOW = 1_800_000_000.5


class Desk:
    """The tokens of a service, its keys and its clock."""

    def __init__(self, *, takes_tokens: bool = True) -> None:
        self.now = NOW
        self.keys: dict[str, Principal] = {}
        self.tokens = StatusTokens(b"secret")
        keys = TokenKeys(self.keys.get, takes_tokens=takes_tokens)
        signals = SignalAccess(SignalTokens(b"x" * 32), lambda: self.now, keys)
        uploads = UploadAccess(UploadTokens(b"x" * 32), lambda: self.now, keys)
        self.access = StatusAccess(self.tokens, lambda: self.now, keys, signals, uploads)

    def principal(self, *scopes: str, key_id: str = "k1", seconds: float | None = None) -> Principal:
        """A principal whose key is in use."""
        expires_at = None if seconds is None else datetime.fromtimestamp(NOW + seconds, tz=UTC)
        found = Principal(
            tenant="acme",
            subject="billing",
            scopes=Scopes.parse(scopes or ("read", "submit")),
            expires_at=expires_at,
            key_id=key_id,
        )
        if key_id:
            self.keys[key_id] = found
        return found

    def give(self, principal: Principal, seconds: int = 60) -> str:
        """A token for the operation `op-1`."""
        given = self.access.give(principal, "op-1", seconds)
        assert given is not None
        return given.text

    def refused(self, token: str, path: str = "/status/op-1") -> None:
        """Check that a token is refused as an unknown operation is."""
        with pytest.raises(ApiError) as refused:
            self.access.principal(token, path)
        unknown = operation_not_found()
        assert (refused.value.body, refused.value.headers) == (unknown.body, unknown.headers)


def test_a_token_reads_one_operation() -> None:
    """Its status, in the tenant of the principal that asked, and nothing else, not even its history."""
    desk = Desk()
    token = desk.give(desk.principal())
    for path in ("/status/op-1", "/status/op-1:cancel"):
        found = desk.access.principal(token, path)
        assert (found.tenant, found.subject, found.key_id) == ("acme", "", "k1")
        assert found.scopes.texts == ("read:all",)
        assert found.expires_at is not None
        assert found.expires_at.timestamp() == int(NOW) + 60
    for path in ("/status/op-2", "/status/op-11", "/status/op", "/status/", "/status//op-1", "/status/op-2:op-1"):
        desk.refused(token, path)
    for path in ("/status/op-1/events", "/status/op-1/", "/status/op-1:x/events", "/status/op-1//events"):
        desk.refused(token, path)


def test_a_token_ends_by_itself() -> None:
    """When its seconds are over."""
    desk = Desk()
    token = desk.give(desk.principal())
    desk.now += 60
    desk.refused(token)


def test_a_token_ends_with_its_key() -> None:
    """When that is revoked, when it may not read any more, and when the id is that of another tenant's key."""
    desk = Desk()
    token = desk.give(desk.principal())
    desk.principal("submit")
    desk.refused(token)
    desk.keys["k1"] = Principal(tenant="evil", subject="x", scopes=Scopes.parse(["read"]), key_id="k1")
    desk.refused(token)
    desk.principal()
    assert desk.access.principal(token, "/status/op-1").tenant == "acme"
    del desk.keys["k1"]
    desk.refused(token)


def test_a_token_is_no_longer_than_its_key() -> None:
    """One whose key ends sooner, and one of a bearer token, which nothing can revoke."""
    desk = Desk()
    for principal, seconds in [
        (desk.principal(), 86_400),
        (desk.principal(seconds=90), 90),
        (desk.principal(key_id="", seconds=90), 3600),
    ]:
        given = desk.access.give(principal, "op-1", 86_400)
        assert given is not None
        assert given.seconds == seconds


def test_no_key_is_named_only_where_bearer_tokens_are_taken() -> None:
    """A grant that no key can end was made elsewhere, if this service takes keys only."""
    grant = StatusGrant(expires_at=int(NOW) + 60, key_id="", tenant="acme")
    for takes_tokens in (True, False):
        desk = Desk(takes_tokens=takes_tokens)
        token = desk.tokens.sign(grant, "op-1")
        if takes_tokens:
            assert desk.access.principal(token, "/status/op-1").tenant == "acme"
        else:
            desk.refused(token)


@pytest.mark.parametrize(("key_id", "longest"), [("k1", MAX_STATUS_TOKEN_SECONDS), ("", MAX_UNREVOCABLE_SECONDS)])
def test_no_token_is_longer_than_what_is_given(key_id: str, longest: int) -> None:
    """One that was made with the secret of a backup could otherwise last for ever. Clocks may differ a little."""
    desk = Desk()
    desk.principal(key_id="k1")
    for seconds, is_right in [(longest + CLOCK_LEEWAY, True), (longest + CLOCK_LEEWAY + 1, False), (2**40, False)]:
        token = desk.tokens.sign(StatusGrant(expires_at=int(NOW) + seconds, key_id=key_id, tenant="acme"), "op-1")
        if is_right:
            assert desk.access.principal(token, "/status/op-1").key_id == key_id
        else:
            desk.refused(token)


def test_who_may_not_read_gets_none() -> None:
    """A token would let it read what its own key does not."""
    desk = Desk()
    assert desk.access.give(desk.principal("submit", "cancel"), "op-1", 60) is None


@pytest.mark.parametrize(
    ("path", "query", "token", "left"),
    [
        ("/status/1", b"token=abc", "abc", b""),
        ("/status/1", b"api-version=1&token=abc&x=y", "abc", b"api-version=1&x=y"),
        ("/status/1/events", b"token=", "", b""),
        ("/status/1", b"token=a&token=b", "", b""),
        ("/status/1", b"tokens=a", None, b"tokens=a"),
        ("/status/1", b"atoken=a", None, b"atoken=a"),
        ("/status/1", b"", None, b""),
        ("/book/1:print", b"token=a", None, b"token=a"),
        ("/openapi.json", b"token=a", None, b"token=a"),
    ],
)
def test_nothing_behind_the_door_sees_a_token(path: str, query: bytes, token: str | None, left: bytes) -> None:
    """It is taken out of the request; of two, none is valid."""
    scope: Any = {"path": path, "query_string": query}
    assert (take_status_token(scope), scope["query_string"]) == (token, left)


@pytest.mark.parametrize(
    ("before", "after"), [(None, b"private, no-cache"), (b"no-cache", b"private, no-cache"), (b"no-store", b"no-store")]
)
async def test_answers_to_a_token_stay_private(before: bytes | None, after: bytes) -> None:
    """No shared cache keeps them for another client, and a browser names their URL to no other site."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [] if before is None else [(b"cache-control", before)]
    message: Any = {"type": "http.response.start", "status": 200, "headers": headers}
    await private_answers(send)(message)
    assert dict(sent[0]["headers"]) == {b"cache-control": after, b"referrer-policy": b"no-referrer"}  # type: ignore[typeddict-item]
