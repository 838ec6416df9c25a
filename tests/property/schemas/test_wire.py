"""The wire form of anything: round trips for our data, and nothing but our errors for the rest."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opstream_schemas.errors import InvalidEvent, InvalidName
from opstream_schemas.events import EVENT_DATA, EVENT_TYPES, Event, decode_event, encode_event, recorded_event
from opstream_schemas.names import Kind, check_name, check_operation_id, check_resource_id
from opstream_schemas.status_monitor import request_hash
from opstream_schemas.subjects import (
    EventSubject,
    WakeSubject,
    event_subject,
    fired_wake_subject,
    parse_event_subject,
    parse_wake_subject,
)
from opstream_schemas.text import MAX_NESTING, check_json, truncate_text
from tests.support.schemas.histories import (
    events,
    json_documents,
    json_values,
    kinds,
    names,
    operation_ids,
    resource_ids,
    texts,
)

pytestmark = pytest.mark.unit


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A stored event with some bytes changed, inserted, repeated or lost."""
    payload = bytearray(encode_event(draw(events)))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(payload)))
        end = draw(st.integers(start, min(start + 8, len(payload))))
        bits = b'"', b"{", b"}", b"[" * 200, b"\xff", b"\x00", b"\\", b"1" * 5000, b"1e999", b"null", b"-", b",", b":"
        payload[start:end] = draw(st.sampled_from(bits) | st.binary(max_size=4))
    return bytes(payload)


@given(events, st.integers(1, 2**63 - 1))
def test_an_event_is_decoded_as_it_was_recorded(event: Event, sequence: int) -> None:
    """The reader of any event gets what its writer had, and encodes it to the same bytes."""
    payload = encode_event(event)

    decoded = decode_event(payload, sequence)

    assert recorded_event(event, payload, sequence) == decoded
    assert decoded.data is not None
    again = msgspec.structs.replace(event, data=decoded.data, time=decoded.time)
    assert payload == encode_event(again)


@given(events)
def test_an_event_is_json_to_everyone(event: Event) -> None:
    """A reader without msgspec decodes the bytes as UTF-8 JSON, with the members of CloudEvents 1.0."""
    members = json.loads(encode_event(event).decode())

    assert {"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data"} < members.keys()
    assert event.data.wire_type == members["type"]


@given(st.binary() | damaged() | json_documents())
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b"\xff")
@example(b'{"position":' + b"9" * 10_000 + b"}")
def test_any_bytes_are_an_event_or_invalid(payload: bytes) -> None:
    """Any bytes decode to an event with a valid operation id and position, or raise `InvalidEvent` and nothing else."""
    try:
        decoded = decode_event(payload, 7)
    except InvalidEvent:
        return
    assert check_operation_id(decoded.operation_id)
    assert decoded.position >= 1
    assert (decoded.data is None) == (decoded.type not in EVENT_TYPES)
    json.loads(payload.decode(), parse_int=str)  # Python reads no integer of more than 4,300 digits


def _depth(value: Any) -> int:
    """The number of levels of a decoded document."""
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


@given(st.tuples(json_values, st.sampled_from(['[{"\\', "[{", "", "]"])).map(list), st.integers(0, 6))
def test_nesting_is_measured_without_decoding(value: list[Any], limit: int) -> None:
    """A document is refused exactly if it has more levels than the limit, whatever brackets are in its texts."""
    document = json.dumps(value).encode()

    if _depth(value) > limit:
        with pytest.raises(ValueError, match="deeper"):
            check_json(document, limit)
    else:
        check_json(document, limit)
    check_json(document, MAX_NESTING)


@given(st.text(st.characters()) | texts, st.integers(0, 40))
def test_a_cut_text_is_a_prefix_within_its_limit(text: str, limit: int) -> None:
    """A cut text fits its limit in UTF-8, and is the text itself or a prefix of it with an ellipsis."""
    cut = truncate_text(text, limit)
    whole = text.encode("utf-8", "replace").decode()

    assert len(cut.encode()) <= limit
    assert whole == cut or (len(whole.encode()) > limit and whole.startswith(cut.removesuffix("…")))


@given(st.text(), st.integers(3, 40))
def test_a_text_is_not_cut_shorter_than_needed(text: str, limit: int) -> None:
    """A text that fits stays whole; another one loses less than one character and the ellipsis."""
    size = len(text.encode())

    assert len(truncate_text(text, limit).encode()) > min(size, limit) - 4


def _shuffled(value: Any, draw: st.DrawFn) -> Any:
    """The same JSON with the members of every object in another order."""
    if isinstance(value, dict):
        return {name: _shuffled(value[name], draw) for name in draw(st.permutations(list(value)))}
    return [_shuffled(item, draw) for item in value] if isinstance(value, list) else value


@given(kinds, resource_ids, json_values, texts, st.data())
def test_the_order_of_members_makes_no_other_request(
    kind: Kind, resource_id: str, value: Any, caller: str, data: st.DataObject
) -> None:
    """At any depth, members in another order are the same request."""
    other = _shuffled(value, data.draw)

    assert request_hash(kind, resource_id, value, caller) == request_hash(kind, resource_id, other, caller)


@given(st.tuples(kinds, resource_ids, json_values, texts), st.data())
def test_every_part_makes_another_request(one: tuple[Kind, str, Any, str], data: st.DataObject) -> None:
    """Another action, resource id, input or caller makes another request."""
    part = data.draw(st.integers(0, 3))
    others = [kinds, resource_ids, json_values, texts][part]
    other = list(one)
    other[part] = data.draw(others.filter(lambda value: msgspec.json.encode(value) != msgspec.json.encode(one[part])))

    # Equal but for the order of members is the same input, which the test above is about.
    differs = part != 2 or msgspec.json.encode(one[2], order="sorted") != msgspec.json.encode(other[2], order="sorted")
    assert differs == (request_hash(*one) != request_hash(*other))


@given(operation_ids, kinds, st.sampled_from(EVENT_DATA))
def test_an_event_subject_is_parsed_as_it_was_built(operation_id: str, kind: Kind, data: Any) -> None:
    """A subject that was built parses to the same parts."""
    subject = event_subject(operation_id, kind, data.name)

    assert EventSubject(operation_id, kind, data.name) == parse_event_subject(subject)
    assert len(subject.split(".")) == 5


@given(operation_ids, kinds, names)
def test_a_wake_subject_is_parsed_as_it_was_built(operation_id: str, kind: Kind, why: str) -> None:
    """A timer that fired is copied to a wake subject with the same parts."""
    subject = "wake" + fired_wake_subject(kind, operation_id, why).removeprefix("fire")

    assert WakeSubject(operation_id, kind, why) == parse_wake_subject(subject)


@given(st.text(st.characters()))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    """The grammar returns the text unchanged or raises `InvalidName`; what passes is harmless in a subject."""
    for check in (check_operation_id, lambda value: check_name(value, "x"), check_resource_id, Kind.parse):
        try:
            passed = check(text)
        except InvalidName:
            continue
        assert text == str(passed)
        assert check is check_resource_id or not set(text) & set(". *>\t\r\n\0/")


@given(st.text(st.characters()) | st.lists(texts | names, max_size=7).map(".".join))
def test_any_subject_is_parsed_or_refused(subject: str) -> None:
    """Any subject is parsed into its parts or raises `InvalidName`."""
    for parse in (parse_event_subject, parse_wake_subject):
        try:
            parsed = parse(subject)
        except InvalidName:
            continue
        assert parsed.operation_id in subject.split(".")
