"""The wire form of events: what is stored, what is read back, and what is invalid."""

import hashlib
import json
import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
import pytest

from opstream_schemas.errors import InvalidEvent
from opstream_schemas.events import (
    EVENT_DATA,
    CancelRequested,
    Event,
    EventData,
    Failed,
    OperationError,
    Progressed,
    Requested,
    Succeeded,
    decode_event,
    digest,
    encode_event,
    recorded_event,
)
from opstream_schemas.text import MAX_NESTING, format_count, truncate_text
from tests.support.schemas.histories import FAILURE, NOW, FromTheFuture, handed_back, request, started

pytestmark = pytest.mark.unit


def event(data: EventData, **changes: Any) -> Event:
    """An event around some data."""
    fields: dict[str, Any] = {
        "id": "event-1",
        "source": "opstream/api",
        "operation_id": "op-1",
        "time": NOW,
        "position": 1,
        "previous_hash": "",
        "data": data,
    }
    return Event(**(fields | changes))


def stored(**changes: Any) -> bytes:
    """A stored request with members of its envelope changed, or removed where the value is ``...``."""
    members = json.loads(encode_event(event(request()))) | changes
    return json.dumps({name: value for name, value in members.items() if value is not ...}).encode()


def stored_data(**changes: Any) -> bytes:
    """A stored request with members of its data changed or removed."""
    members = json.loads(encode_event(event(request())))["data"] | changes
    return stored(data={name: value for name, value in members.items() if value is not ...})


def test_an_event_is_a_cloud_event() -> None:
    """What is stored is a CloudEvents 1.0 object in structured mode, whose subject is the operation."""
    envelope = json.loads(encode_event(event(CancelRequested(by="ann", reason="late"), position=3, previous_hash="f0")))

    expected = {
        "specversion": "1.0",
        "id": "event-1",
        "source": "opstream/api",
        "type": "opstream.action.cancel-requested.v1",
        "subject": "op-1",
        "time": "2026-03-14T09:26:53.589793Z",
        "datacontenttype": "application/json",
        "position": 3,
        "previoushash": "f0",
        "data": {"by": "ann", "reason": "late"},
    }
    assert expected == envelope


def test_the_names_of_extensions_are_legal() -> None:
    """CloudEvents allows small letters and digits only in attribute names."""
    assert all(name.isalnum() and name.islower() for name in json.loads(stored()))


@pytest.mark.parametrize("data", EVENT_DATA)
def test_a_type_ends_in_the_name_of_its_subject(data: type[EventData]) -> None:
    """The last part of an event's type is the last token of its subject."""
    assert f"opstream.action.{data.name}.v1" == data.type


def test_the_input_is_stored_as_it_came() -> None:
    """Numbers keep their digits and members their order, because the input is not decoded and encoded again."""
    document = b'{"z": 1.50, "a": 12345678901234567890123, "a": 2}'

    decoded = decode_event(encode_event(event(request(input=msgspec.Raw(document)))), 1)

    assert isinstance(decoded.data, Requested)
    assert document == bytes(decoded.data.input)


def test_a_recorded_event_equals_the_decoded_one() -> None:
    """`recorded_event` and `decode_event` return the same, hash included."""
    one = event(handed_back(3, counted=False), position=7, previous_hash="ab")
    payload = encode_event(one)

    assert decode_event(payload, 99) == recorded_event(one, payload, 99)
    assert hashlib.sha256(payload).hexdigest() == recorded_event(one, payload, 99).digest


def test_the_digest_is_sha256() -> None:
    """Auditors can verify the chain with any tool that knows SHA-256."""
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

    assert expected == digest(b"abc")


def test_an_unknown_type_is_decoded_without_data() -> None:
    """A reader gets the envelope of an event whose type this version does not know."""
    decoded = decode_event(encode_event(event(FromTheFuture())), 5)

    assert FromTheFuture.type == decoded.type
    assert decoded.data is None


def test_an_unknown_member_is_ignored() -> None:
    """A newer writer may add members to the envelope and to the data."""
    expected = decode_event(stored(), 1).data

    assert expected == decode_event(stored(dataschema="x"), 1).data
    assert expected == decode_event(stored_data(colour="red"), 1).data


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"{",
        b"\xff\xfe",
        b"\x00",
        stored() + b"x",
        stored(specversion="0.3"),
        stored(specversion=...),
        stored(datacontenttype="text/plain"),
        stored(id=...),
        stored(source=7),
        stored(type=None),
        stored(data=...),
        stored(data=None),
        stored(data=[]),
        stored(position=...),
        stored(position=0),
        stored(position=-1),
        stored(position="1"),
        stored(position=1.5),
        stored(previoushash=...),
        stored(time="2026-03-14T09:26:53"),  # without a zone
        stored(time="yesterday"),
        stored(time=1),
        stored(subject=...),
        stored(subject=""),
        stored(subject="a.b"),
        stored(subject=">"),
        stored(subject="x" * 65),
        stored_data(resource=...),
        stored_data(input=...),
        stored_data(actionVersion="1"),
        stored_data(deadline="2026-03-14T09:26:53"),
        stored_data(retention=None),
        # Subjects are built from these two.
        stored_data(resource=">"),
        stored_data(resource="a.b"),
        stored_data(resource="status"),
        stored_data(resource="book:x"),
        stored_data(action="*"),
        stored_data(action=""),
        # Passed over without a look by msgspec, inside of a Raw.
        stored().replace(b'"input": {"files": []}', b'"input": "\xff"'),
        stored().replace(b'"position": 1', b'"position": 1' + b"0" * 5000),
        stored().replace(b'"retention": 86400.0', b'"retention": 1e999'),
        stored().replace(b'"retention": 86400.0', b'"retention": NaN'),
        stored().replace(b'"input": {"files": []}', b'"input": ' + b"[" * 100_000 + b"]" * 100_000),
        b"[" * 1_000_000,
    ],
)
def test_bytes_that_are_not_an_event_are_invalid(payload: bytes) -> None:
    """Such bytes raise `InvalidEvent`, which names their stream sequence."""
    assert stored() != payload
    with pytest.raises(InvalidEvent, match="message 17 of the journal"):
        decode_event(payload, 17)


@pytest.mark.parametrize(
    "data",
    [
        Progressed(percent=math.nan),
        Progressed(percent=math.inf),
        Failed(error=OperationError(code=None, message="x")),  # type: ignore[arg-type] - what an author might raise
        Failed(error=OperationError(code="x", message="\ud800")),
        Succeeded(result=msgspec.Raw(b"")),
        Succeeded(result=msgspec.Raw(b"{")),
        Succeeded(result=msgspec.Raw(b'"\xff"')),
        Succeeded(result=msgspec.Raw(b"1}")),
        handed_back(counted=True, retry_at=NOW.replace(tzinfo=None)),
        request(resource="a.b"),
        request(action=">"),
    ],
)
def test_data_that_could_not_be_decoded_is_not_encoded(data: EventData) -> None:
    """The journal deletes nothing: bytes that can't be decoded would block their operation for ever."""
    with pytest.raises(InvalidEvent, match="can't be recorded for op-1"):
        encode_event(event(data))


@pytest.mark.parametrize(
    "changes", [{"time": NOW.replace(tzinfo=None)}, {"position": 0}, {"operation_id": "a.b"}, {"id": "\ud800"}]
)
def test_an_envelope_that_could_not_be_decoded_is_not_encoded(changes: dict[str, Any]) -> None:
    """The same holds for the envelope."""
    with pytest.raises(InvalidEvent):
        encode_event(event(started(), **changes))


def nested(levels: int) -> msgspec.Raw:
    """Arrays inside each other, and some more side by side."""
    return msgspec.Raw(b"[" * (levels - 1) + b"[],[],[]" + b"]" * (levels - 1))


def deeper(frames: int, call: Callable[[], Any]) -> Any:
    """Call from a stack that already has many frames."""
    return deeper(frames - 1, call) if frames else call()


def test_nesting_is_limited_before_anything_is_stored() -> None:
    """An input or result of 100 levels is recorded, one of 101 is not: no reader may find it too deep later."""
    assert decode_event(encode_event(event(request(input=nested(100)))), 1)
    assert decode_event(encode_event(event(Succeeded(result=nested(100)))), 1)

    with pytest.raises(InvalidEvent, match="nests deeper"):
        encode_event(event(request(input=nested(101))))


def test_a_full_stack_decodes_what_an_empty_one_encoded() -> None:
    """Decoding recurses: without a limit, a runner with less stack could not decode what the API accepted."""
    payload = encode_event(event(request(input=nested(MAX_NESTING))))

    decoded = deeper(600, lambda: decode_event(payload, 1))

    assert decode_event(payload, 1) == decoded


def test_brackets_in_texts_are_not_nesting() -> None:
    """A result may have any number of brackets in its strings."""
    text = msgspec.json.encode('[{"\\"[[' * 1000)

    assert decode_event(encode_event(event(Succeeded(result=msgspec.Raw(text)))), 1).data is not None


@pytest.mark.parametrize(
    ("expected", "text", "limit"),
    [
        ("", "", 8),
        ("12345678", "12345678", 8),
        ("12345…", "123456789", 8),
        ("éé…", "ééééé", 8),  # the third é would be split
        ("😀…", "😀😀😀", 8),
        ("…", "12345", 3),
        ("…", "ééé", 4),
        ("12", "12345", 2),
        ("", "éé", 1),
        ("", "x", 0),
        ("a?b", "a\ud800b", 8),
    ],
)
def test_a_text_is_cut_to_bytes_at_a_character(expected: str, text: str, limit: int) -> None:
    """A cut text ends in an ellipsis, fits the limit, and has no broken character."""
    assert expected == truncate_text(text, limit)


def test_texts_are_cut_at_4_kib() -> None:
    """The limit of a text is 4,096 bytes."""
    longest = "x" * 4096

    assert longest == truncate_text(longest)
    assert len(longest) == len(truncate_text(longest + "x").encode())


def test_a_time_is_stored_with_its_zone() -> None:
    """A time in another zone is read back as the same point in time, with its offset."""
    elsewhere = datetime.fromisoformat("2026-03-14T15:11:53.589793+05:45")

    decoded = decode_event(encode_event(event(started(), time=elsewhere)), 1)

    assert elsewhere == decoded.time
    assert elsewhere.utcoffset() == decoded.time.utcoffset()


def test_an_error_without_target_has_none_on_the_wire() -> None:
    """Members with default values are left out."""
    expected = {"error": {"code": 400, "message": "no"}}

    assert expected == json.loads(encode_event(event(Failed(error=OperationError(code=400, message="no")))))["data"]
    assert "target" in json.loads(encode_event(event(Failed(error=FAILURE))))["data"]["error"]


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0 entries"), (1, "1 entry"), (2, "2 entries"), (1_200, "1,200 entries")]
)
def test_a_count_has_its_noun(number: int, told: str) -> None:
    """A number stands with its noun in the right form."""
    assert format_count(number, "entry", "entries") == told
    assert format_count(1, "event") == "1 event"
    assert format_count(2, "event") == "2 events"
