"""The idempotency key of a submit: which operation it means."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_api.errors import ApiError
from opstream_api.http.requests import Headers, parse_headers
from opstream_api.http.submit_request import IdempotencyKey, parse_idempotency_key, uses_repeatability
from opstream_schemas.errors import ErrorCode
from opstream_schemas.names import check_operation_id

pytestmark = pytest.mark.unit

REQUEST_ID = "4227cdc5-9f48-4e84-921a-10967cb785a0"
FIRST_SENT = "Tue, 24 Nov 2026 08:00:00 GMT"
TEXT = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=64)


def headers(**values: str | list[str]) -> Headers:
    """Headers by name, `_` for `-`."""
    pairs = ((name, [value] if isinstance(value, str) else value) for name, value in values.items())
    return parse_headers(
        (name.lower().replace("_", "-").encode(), one.encode()) for name, many in pairs for one in many
    )


def pair(request_id: str = REQUEST_ID, first_sent: str = FIRST_SENT) -> Headers:
    """The two headers of a repeatable request."""
    return headers(repeatability_request_id=request_id, repeatability_first_sent=first_sent)


def found(given_headers: Headers) -> IdempotencyKey:
    """Parse a key; a generated id is `made`."""
    return parse_idempotency_key(given_headers, lambda: "made")


def wrong_header(given_headers: Headers) -> str:
    """Return the wrong header of an error."""
    with pytest.raises(ApiError) as caught:
        found(given_headers)
    assert caught.value.code is ErrorCode.INVALID_HEADER
    return caught.value.body.error.target


def test_operation_id_is_optional() -> None:
    """Without a header the service generates an id. A retry sends it as `Operation-Id` in both cases."""
    assert found(headers()) == IdempotencyKey(operation_id="made", header="Operation-Id")
    assert found(headers(operation_id="my-id_1")) == IdempotencyKey(operation_id="my-id_1", header="Operation-Id")


@pytest.mark.parametrize("values", [[""], ["a b"], ["a.b"], ["*"], [">"], ["x" * 65], ["ü"], ["a", "a"]])
def test_operation_id_has_a_grammar(values: list[str]) -> None:
    """An id that is not one plain token of a subject is refused, and so are two ids."""
    assert wrong_header(headers(operation_id=values)) == "Operation-Id"


@pytest.mark.parametrize("value", ["sched-nightly-20261124T080000Z", "trig-a-b-20261124T080000Z"])
def test_the_ids_of_schedules_are_theirs(value: str) -> None:
    """No client takes the id of a moment before the schedule does."""
    assert wrong_header(headers(operation_id=value)) == "Operation-Id"


@pytest.mark.parametrize("value", ["one-retry-1", "one-retry-1-retry-12", "retry-" + "x" * 43])
def test_the_ids_of_retries_are_theirs(value: str) -> None:
    """No client keeps another one's operation from being done again, by taking the id of its follow-up."""
    assert wrong_header(headers(operation_id=value)) == "Operation-Id"


def test_a_pair_is_an_operation_id() -> None:
    """The id is base64url of the SHA-256 of the pair, as docs/contract.md says."""
    digest = hashlib.sha256(f"{REQUEST_ID}\n{FIRST_SENT}".encode()).digest()
    identity = found(pair())
    assert identity.operation_id == urlsafe_b64encode(digest).decode().rstrip("=")
    assert identity.is_repeatable


@given(st.lists(TEXT, min_size=2, max_size=2, unique=True))
def test_pairs_do_not_collide(ids: list[str]) -> None:
    """Another request id is another valid operation id; the same pair is the same."""
    first, second = (found(pair(one)).operation_id for one in ids)
    assert first == found(pair(ids[0])).operation_id
    assert first != second
    assert check_operation_id(first) == first


def test_another_date_is_another_request() -> None:
    """Both headers together name the request, not the first one alone."""
    assert found(pair()).operation_id != found(pair(first_sent="Tue, 24 Nov 2026 08:00:01 GMT")).operation_id


@pytest.mark.parametrize(
    ("given_headers", "target"),
    [
        (headers(repeatability_request_id=REQUEST_ID), "Repeatability-First-Sent"),
        (headers(repeatability_first_sent=FIRST_SENT), "Repeatability-Request-ID"),
        (pair(request_id=""), "Repeatability-Request-ID"),
        (pair(request_id="a b"), "Repeatability-Request-ID"),
        (pair(request_id="x" * 257), "Repeatability-Request-ID"),
        (pair(first_sent="2026-11-24T08:00:00Z"), "Repeatability-First-Sent"),
        (pair(first_sent="Tue, 24 Nov 2026 08:00:00 CET"), "Repeatability-First-Sent"),
        (pair(first_sent="Tue, 99 Nov 2026 08:00:00 GMT"), "Repeatability-First-Sent"),
        (pair(first_sent="tomorrow"), "Repeatability-First-Sent"),
        (pair() | headers(operation_id="mine"), "Operation-Id"),
        (
            headers(repeatability_request_id=[REQUEST_ID, REQUEST_ID], repeatability_first_sent=FIRST_SENT),
            "Repeatability-Request-ID",
        ),
    ],
)
def test_an_invalid_pair_is_refused(given_headers: Headers, target: str) -> None:
    """Half a pair, a repeated or malformed header, or a second name for the operation is refused by its name."""
    assert wrong_header(given_headers) == target
    assert uses_repeatability(given_headers)


def test_others_are_not_repeatable() -> None:
    """Only a request with the OASIS headers gets `Repeatability-Result`."""
    assert not uses_repeatability(headers(operation_id="mine"))
    assert not found(headers(operation_id="mine")).is_repeatable
