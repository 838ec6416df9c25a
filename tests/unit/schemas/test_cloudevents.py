"""Events are CloudEvents 1.0, by the official SDK and by the specification."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest
from cloudevents.core.exceptions import CloudEventValidationError

from opstream_schemas.errors import InvalidEvent
from opstream_schemas.events import EVENT_DATA, EVENT_TYPES, decode_event
from tests.support.schemas.cloudevents import check_round_trip, check_rules, check_same, read

pytestmark = pytest.mark.unit

GOLDEN: Final = Path(__file__).parent / "golden"
FILES: Final = [file for data in EVENT_DATA for file in sorted(GOLDEN.glob(f"{data.name}.*"))]
every = pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)


def test_every_type_has_a_file() -> None:
    """The tests below cover all event types."""
    assert {read(file.read_bytes()).get_type() for file in FILES} == EVENT_TYPES.keys()


@every
def test_the_sdk_reads_what_we_do(file: Path) -> None:
    """The SDK reads the same attributes, extensions and data as our decoder."""
    payload = file.read_bytes()
    check_same(read(payload), decode_event(payload, 1))


@every
def test_a_round_trip_keeps_the_meaning(file: Path) -> None:
    """An event that is forwarded with the SDK stays the same event, though not the same bytes."""
    check_round_trip(file.read_bytes())


@every
def test_the_rules_that_no_sdk_checks(file: Path) -> None:
    """Names of extensions, a source that is a URI reference, an RFC 3339 time, and a 32-bit Integer."""
    check_rules(file.read_bytes())


@pytest.mark.parametrize(
    "changes",
    [{"id": ""}, {"source": ""}, {"type": ""}, {"subject": ""}, {"specversion": "2.0"}, {"id": 5}, {"source": None}],
)
def test_what_the_sdk_refuses_we_refuse(changes: dict[str, Any]) -> None:
    """What is not a CloudEvent is not an event for our decoder either."""
    members = json.loads(FILES[0].read_bytes()) | changes
    with pytest.raises((CloudEventValidationError, ValueError)):
        read(json.dumps(members).encode())
    with pytest.raises(InvalidEvent):
        decode_event(json.dumps(members).encode(), 1)


def test_a_position_is_an_integer_of_cloudevents() -> None:
    """A position has 32 bits, unlike a stream sequence."""
    members = json.loads(FILES[0].read_bytes())
    assert decode_event(json.dumps(members | {"position": 2**31 - 1}).encode(), 1).position == 2**31 - 1
    with pytest.raises(InvalidEvent):
        decode_event(json.dumps(members | {"position": 2**31}).encode(), 1)
