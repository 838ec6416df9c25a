"""The event that a client reads: with its own id as the subject, and otherwise as stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from opstream_schemas.events import Requested, decode_event, encode_event, with_own_id
from opstream_schemas.operation.fold import first_event, initial
from opstream_schemas.status_monitor import build_status_monitor

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 30, tzinfo=UTC)
STORED_ID = "q8-lW0tX3kq2s_Gd2M1n7uJt0yq1cJr1o3l0mE5bYxA"


def stored(action_input: object) -> bytes:
    """The bytes of a request."""
    requested = Requested(
        resource="book",
        action="index",
        action_version=1,
        input=msgspec.Raw(msgspec.json.encode(action_input)),
        request_hash="",
        deadline=NOW + timedelta(days=1),
        retention=1.0,
        tenant="acme",
        caller="ann",
        own_id="one",
    )
    return encode_event(first_event(STORED_ID, requested, id="1", source="opstream/api", time=NOW))


@pytest.mark.parametrize(
    "action_input",
    [{}, {"subject": STORED_ID}, {"text": f'"subject":"{STORED_ID}"'}, {"text": "ä\u2028\\"}],
    ids=["plain", "same member", "same text", "escapes"],
)
def test_only_the_subject_of_the_envelope_differs(action_input: dict[str, str]) -> None:
    """Whatever the input looks like."""
    before, after = (msgspec.json.decode(one) for one in (stored(action_input), shown(action_input)))
    assert (before.pop("subject"), after.pop("subject")) == (STORED_ID, "one")
    assert before == after


def shown(action_input: object) -> bytes:
    """The same as a client reads it."""
    return with_own_id(stored(action_input), STORED_ID, "one")


def test_another_spelling_of_json_is_understood() -> None:
    """A writer of another language may put spaces and orders as it likes."""
    members = msgspec.json.decode(stored({}))
    spaced = msgspec.json.format(msgspec.json.encode(dict(reversed(members.items()))), indent=2)
    assert decode_event(with_own_id(spaced, STORED_ID, "one"), 1).operation_id == "one"


def test_without_an_own_id_the_bytes_are_those_of_the_chain() -> None:
    """As they always were."""
    assert with_own_id(stored({}), STORED_ID, "") == stored({})


def test_the_status_has_the_own_id_and_no_owner() -> None:
    """Neither tenant nor subject is shown."""
    monitor = msgspec.json.encode(build_status_monitor(initial(decode_event(stored({}), 7))))
    assert msgspec.json.decode(monitor)["id"] == "one"
    assert b"acme" not in monitor
    assert b"ann" not in monitor
