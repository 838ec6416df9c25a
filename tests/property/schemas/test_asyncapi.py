"""The AsyncAPI document holds for every possible event and subject."""

from __future__ import annotations

import json
from typing import Any, Final

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_schemas import subjects
from opstream_schemas.asyncapi import TypedAction, action_object_name, asyncapi_document
from opstream_schemas.events import EVENT_DATA
from opstream_schemas.integrity import archive_subjects
from opstream_schemas.names import Kind
from tests.support.schemas.asyncapi import as_component, as_sent, channels_of, is_filtered, message, validator
from tests.support.schemas.histories import History, histories, json_values, kinds, operation_ids

pytestmark = pytest.mark.unit

ROOT: Final = as_sent(asyncapi_document())
NAMES: Final = [data.name for data in EVENT_DATA]
TAKES: Final = {name: validator(ROOT, message(ROOT, name)["payload"]) for name in NAMES}
EVENTS: Final = st.sampled_from(NAMES)


@given(operation_ids, kinds, EVENTS)
def test_every_subject_has_one_channel(operation_id: str, kind: Kind, event: str) -> None:
    """It is that of its event type; only that channel's filter matches the subject."""
    subject = subjects.event_subject(operation_id, kind, event)
    assert channels_of(ROOT, subject) == [event]
    filters = {name: channel["x-jetstream"]["filterSubject"] for name, channel in ROOT["channels"].items()}
    assert [name for name, pattern in filters.items() if is_filtered(pattern, subject)] == [event]


@given(kinds, EVENTS)
def test_every_subject_of_the_archive_has_one_channel(kind: Kind, event: str) -> None:
    """It is that of its event type in the archive."""
    subject = archive_subjects.archive_subject(kind, event)
    assert channels_of(ROOT, subject) == [f"archive.{event}"]
    filters = {name: channel["x-jetstream"]["filterSubject"] for name, channel in ROOT["channels"].items()}
    assert [name for name, pattern in filters.items() if is_filtered(pattern, subject)] == [f"archive.{event}"]


@given(operation_ids, st.lists(kinds, min_size=1, max_size=4, unique=True), kinds, EVENTS)
def test_a_subject_has_the_channel_of_its_action_too(
    operation_id: str, known: list[Kind], kind: Kind, event: str
) -> None:
    """It has one if the action is in the document and the event has the action's input or result."""
    actions = [TypedAction(kind=one, version=1, input_schema={}, result_schema={}) for one in known]
    root = as_sent(asyncapi_document(actions))
    for one in (*known, kind):
        subject = subjects.event_subject(operation_id, one, event)
        is_typed = one in known and event in ("requested", "succeeded")
        own = [action_object_name(one, event)] if is_typed else []
        assert channels_of(root, subject) == [event, *own]
        filters = {name: channel["x-jetstream"]["filterSubject"] for name, channel in root["channels"].items()}
        assert [name for name, pattern in filters.items() if is_filtered(pattern, subject)] == [event, *own]


@given(histories())
def test_every_history_is_described(history: History) -> None:
    """Each event is valid as the message of its channel, and of no other one."""
    for event, payload in zip(history.events, history.payloads, strict=True):
        assert event.data is not None
        value = json.loads(payload)
        assert [name for name, takes in TAKES.items() if takes.is_valid(value)] == [event.data.name]


SCALARS: Final = st.one_of(
    st.sampled_from(
        [{"type": "string"}, {"type": "boolean"}, {"type": "null"}, {}, True, False, {"$ref": "#/$defs/One"}]
    ),
    st.fixed_dictionaries({"type": st.just("integer")}, optional={"minimum": st.integers(-3, 3)}),
    st.fixed_dictionaries({"$ref": st.just("#/$defs/One"), "maximum": st.integers(-3, 3)}),
    st.fixed_dictionaries({"pattern": st.sampled_from(["^a", "[0-9]+$", r"\d", "^(a|b)"])}),
    st.builds(lambda value: {"const": value}, json_values),
)
NAMES: Final = st.sampled_from(["a", "b", "c"])


def wider(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Schemas with nested schemas, in each form that 2020-12 and draft-07 write differently."""
    some = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        st.fixed_dictionaries({"prefixItems": some}, optional={"items": inner}),
        st.fixed_dictionaries(
            {"properties": st.dictionaries(NAMES, inner, max_size=3)},
            optional={"required": st.lists(NAMES, unique=True), "additionalProperties": inner},
        ),
        st.fixed_dictionaries({"dependentRequired": st.dictionaries(NAMES, st.lists(NAMES, unique=True), max_size=2)}),
        st.fixed_dictionaries({"dependentSchemas": st.dictionaries(NAMES, inner, max_size=2)}),
        st.fixed_dictionaries({"$ref": st.just("#/$defs/One"), "allOf": some}),
        st.fixed_dictionaries({"items": inner}),
        st.fixed_dictionaries({"anyOf": some, "not": inner}),
        st.fixed_dictionaries({"if": inner}, optional={"then": inner, "else": inner}),
        st.fixed_dictionaries({"contains": inner, "oneOf": some}),
    )


SCHEMAS: Final = st.recursive(SCALARS, wider, max_leaves=8).filter(lambda schema: not isinstance(schema, bool))
VALUES: Final = json_values | st.recursive(
    st.integers(-4, 4) | st.sampled_from(["", "a", "b7", None, True]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


@given(SCHEMAS, st.sampled_from([{"type": "integer"}, {"type": "array", "items": {"$ref": "#/$defs/One"}}]), VALUES)
def test_a_schema_means_the_same_in_the_document(schema: dict[str, Any], one: dict[str, Any], value: Any) -> None:
    """Translated to draft-07, any schema accepts and refuses the same values."""
    whole = {**schema, "$defs": {"One": one}}
    reference, root = as_component(whole)
    assert "One" in root["components"]["schemas"]
    other = validator(root, reference)
    assert other.is_valid(value) == jsonschema_rs.Draft202012Validator(whole).is_valid(value)
