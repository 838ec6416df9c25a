"""The JSON Schemas that are published for programs in other languages."""

import json
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from opstream_schemas.events import EVENT_DATA, EVENT_TYPES, EventData, Requested, encode_event
from opstream_schemas.json_schemas import json_schemas
from opstream_schemas.operation.state import Operation
from tests.support.schemas.histories import History, request, started

pytestmark = pytest.mark.unit


def document(**changes: Any) -> dict[str, Any]:
    """A stored request with members changed, or removed where the value is ``...``."""
    members = json.loads(encode_event(History().next_event(request()))) | changes
    return {name: value for name, value in members.items() if value is not ...}


def test_there_is_a_schema_for_each_event_and_the_operation() -> None:
    """Events have their types as keys; the value in the view has the key `operation`."""
    assert {*EVENT_TYPES, "operation"} == json_schemas().keys()


@pytest.mark.parametrize("name", json_schemas())
def test_each_document_is_a_json_schema(name: str) -> None:
    """Each document is valid JSON Schema 2020-12 and says so, and each of its references resolves."""
    schema = json_schemas()[name]

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema_rs.meta.validate(schema)
    jsonschema_rs.Draft202012Validator(schema)


@pytest.mark.parametrize("data", EVENT_DATA, ids=lambda data: data.name)
def test_an_event_schema_is_named_and_described_as_the_event(data: type[EventData]) -> None:
    """The title and description are the event's, not the envelope's."""
    schema = json_schemas()[data.type]

    assert data.type == schema["title"]
    assert data.__doc__ == schema["description"]


def test_the_operation_schema_is_named_and_described() -> None:
    """The schema of the view's value has its own title."""
    schema = json_schemas()["operation"]

    assert schema["title"] == "operation"
    assert Operation.__doc__ == schema["description"]


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "opstream.action.started.v1"},
        {"specversion": "0.3"},
        {"datacontenttype": "text/plain"},
        {"datacontenttype": ...},
        {"data": ...},
        {"data": {}},
        {"position": ...},
        {"position": 0},
        {"position": "1"},
        {"previoushash": ...},
        {"time": 5},
        {"time": "yesterday"},
        {"subject": ...},
    ],
)
def test_another_document_is_invalid(changes: dict[str, Any]) -> None:
    """A schema accepts only its own event."""
    validator = jsonschema_rs.Draft202012Validator(json_schemas()[Requested.type], validate_formats=True)

    assert validator.is_valid(document())
    assert not validator.is_valid(document(**changes))


def test_an_unknown_member_is_valid() -> None:
    """Readers are tolerant: a newer version may add members."""
    validator = jsonschema_rs.Draft202012Validator(json_schemas()[Requested.type])

    assert validator.is_valid(document(dataschema="x", data=document()["data"] | {"colour": "red"}))


@pytest.mark.parametrize("value", [None, True, 1, "x", [], {"a": [1]}])
def test_any_json_is_an_input(value: object) -> None:
    """The action's schema, not the event's, says what an input is."""
    validator = jsonschema_rs.Draft202012Validator(json_schemas()[Requested.type])

    assert validator.is_valid(document(data=document()["data"] | {"input": value}))


def test_the_documents_belong_to_the_caller() -> None:
    """Changing one document changes no other."""
    documents = json_schemas()
    documents[Requested.type]["properties"]["data"]["properties"]["input"]["type"] = "object"

    validator = jsonschema_rs.Draft202012Validator(json_schemas()[Requested.type])
    assert validator.is_valid(document(data=document()["data"] | {"input": 1}))
    assert documents["opstream.action.succeeded.v1"]["properties"]["data"]["properties"]["result"] == {}


def test_a_running_operation_is_valid() -> None:
    """The schema of the operation has its live attempt."""
    validator = jsonschema_rs.Draft202012Validator(json_schemas()["operation"], validate_formats=True)
    snapshot = json.loads(msgspec.json.encode(History().append(request(), started()).operation))

    assert validator.is_valid(snapshot)
    del snapshot["live"]["token"]
    assert not validator.is_valid(snapshot)
