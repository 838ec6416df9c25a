"""The AsyncAPI document for all actions: it is complete, consistent, and matches the journal."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from opstream_schemas import subjects
from opstream_schemas.asyncapi import TypedAction, asyncapi_document
from opstream_schemas.events import CONTENT_TYPE, EVENT_DATA, EventData, Requested, Succeeded, decode_event
from opstream_schemas.names import Kind
from tests.support.schemas.asyncapi import as_sent, message, references, resolved, validator

pytestmark = pytest.mark.unit

GOLDEN: Final = Path(__file__).parents[1] / "golden"
SHIP: Final = Kind("order", "ship")
TYPED: Final = TypedAction(
    kind=SHIP,
    version=3,
    summary="Ship an order.",
    input_schema={"type": "object", "required": ["to"]},
    result_schema={"$ref": "#/components/schemas/Parcel"},
    components={"Parcel": {"type": "integer"}},
    input={"to": "Ann"},
    result=7,
)
DOCUMENTS: Final = [as_sent(asyncapi_document()), as_sent(asyncapi_document([TYPED]))]
both = pytest.mark.parametrize("root", DOCUMENTS, ids=["static", "typed"])


def golden(data: type[EventData]) -> list[Any]:
    """The stored forms of a type that every version must read."""
    return [json.loads(file.read_bytes()) for file in (GOLDEN / f"{data.name}{end}" for end in ENDS) if file.exists()]


ENDS: Final = (".json", ".minimal.json")
NAMES: Final = [data.name for data in EVENT_DATA]


def test_each_event_type_has_one_channel() -> None:
    """Its address is the subject of the type; it has one message, and one operation, which sends it."""
    root = DOCUMENTS[0]
    assert list(root["channels"])[: len(EVENT_DATA)] == [data.name for data in EVENT_DATA]
    for data in EVENT_DATA:
        channel = root["channels"][data.name]
        assert channel["address"] == f"operations.{{operationId}}.{{resource}}.{{action}}.{data.name}"
        assert channel["x-jetstream"] == {
            "stream": "OPERATIONS",
            "filterSubject": subjects.event_type_subject(data.name),
        }
        assert message(root, data.name)["name"] == data.type
        (operation,) = [
            one for one in root["operations"].values() if one["channel"] == {"$ref": f"#/channels/{data.name}"}
        ]
        assert operation["action"] == "send"


def test_each_event_type_has_one_channel_in_the_archive() -> None:
    """Its address is the subject in the archive, and its message is that of the journal."""
    root = DOCUMENTS[0]
    assert list(root["channels"])[len(EVENT_DATA) :] == [f"archive.{data.name}" for data in EVENT_DATA]
    for data in EVENT_DATA:
        channel = root["channels"][f"archive.{data.name}"]
        assert channel["address"] == f"archive.{{resource}}.{{action}}.{data.name}"
        assert channel["x-jetstream"] == {"stream": "ARCHIVE", "filterSubject": f"archive.*.*.{data.name}"}
        assert channel["messages"] == root["channels"][data.name]["messages"]
        assert root["operations"][f"send.archive.{data.name}"]["action"] == "send"


@both
def test_every_reference_resolves(root: dict[str, Any]) -> None:
    """Every reference has a target, and every component is the target of a reference."""
    used = set(references(root))
    for reference in used:
        assert resolved(root, {"$ref": reference}) is not None
    components = {f"#/components/{kind}/{name}" for kind, named in root["components"].items() for name in named}
    assert {reference for reference in used if reference.startswith("#/components/")} == components


@both
def test_addresses_and_parameters(root: dict[str, Any]) -> None:
    """Each channel declares the parameters of its address and no others, each with its pattern and an example of it."""
    for channel in root["channels"].values():
        assert set(re.findall(r"{(\w+)}", channel["address"])) == set(channel["parameters"])
        for parameter in channel["parameters"].values():
            described = resolved(root, parameter)
            assert all(re.fullmatch(described["x-pattern"], shown) for shown in described["examples"])


@both
def test_every_example_is_valid(root: dict[str, Any]) -> None:
    """Each example matches its schema and headers, and the journal can decode it."""
    for channel in root["channels"]:
        one = message(root, channel)
        (example,) = one["examples"]
        validator(root, one["payload"]).validate(example["payload"])
        validator(root, one["headers"]).validate(example["headers"])
        assert example["headers"]["Nats-Msg-Id"] == example["payload"]["id"]
        event = decode_event(json.dumps(example["payload"]).encode(), 1)
        assert event.data is not None
        assert event.data.name == channel.rpartition(".")[2]


@pytest.mark.parametrize("data", EVENT_DATA, ids=lambda data: data.name)
def test_a_golden_event_is_valid_as_its_message_only(data: type[EventData]) -> None:
    """Each golden event matches the message of its type and no other message."""
    root = DOCUMENTS[0]
    events = golden(data)
    assert events
    for event in events:
        fitting = [name for name in NAMES if validator(root, message(root, name)["payload"]).is_valid(event)]
        assert fitting == [data.name]


@pytest.mark.parametrize(
    "changes",
    [
        {"specversion": "0.3"},
        {"id": ""},
        {"source": ""},
        {"source": "not a reference"},
        {"subject": "a.b"},
        {"time": "yesterday"},
        {"datacontenttype": "text/plain"},
        {"position": 0},
        {"position": 2**31},
        {"previoushash": "x"},
        {"data": {}},
    ],
)
def test_a_payload_that_is_not_an_event_is_invalid(changes: dict[str, Any]) -> None:
    """The schema of a payload contains the rules of CloudEvents and of opstream."""
    root = DOCUMENTS[0]
    (event, *_) = golden(Succeeded)
    takes = validator(root, message(root, "succeeded")["payload"])
    assert takes.is_valid(event)
    assert not takes.is_valid(event | changes)


def test_unknown_members_are_valid() -> None:
    """Readers are tolerant: a newer version may add members."""
    root = DOCUMENTS[0]
    (event, *_) = golden(Succeeded)
    takes = validator(root, message(root, "succeeded")["payload"])
    assert takes.is_valid(event | {"dataschema": "x", "data": event["data"] | {"colour": "red"}})


def test_an_action_has_channels_of_its_own() -> None:
    """An action gets a channel for its input and one for its result; the channels for all actions don't change."""
    static, root = DOCUMENTS
    assert [name for name in root["channels"] if name not in static["channels"]] == [
        "order.ship.requested",
        "order.ship.succeeded",
    ]
    assert static["channels"].items() <= root["channels"].items()
    channel = root["channels"]["order.ship.succeeded"]
    assert channel["address"] == "operations.{operationId}.order.ship.succeeded"
    assert channel["x-jetstream"]["filterSubject"] == "operations.*.order.ship.succeeded"
    assert list(channel["parameters"]) == ["operationId"]
    assert "version 3" in channel["description"]
    assert channel["summary"] == "order:ship succeeded: Ship an order."


def test_a_result_is_typed() -> None:
    """The message of an action's success has the schema of its result, in the envelope of every event."""
    root = DOCUMENTS[1]
    takes = validator(root, message(root, "order.ship.succeeded")["payload"])
    (event, *_) = golden(Succeeded)
    assert takes.is_valid(event | {"data": {"result": 7}})
    assert not takes.is_valid(event | {"data": {"result": "7"}})
    assert not takes.is_valid(event | {"data": {}})
    assert not takes.is_valid(event | {"data": {"result": 7}, "subject": "a.b"})


def test_an_input_is_typed() -> None:
    """The message of a request has the schema of the action's input."""
    root = DOCUMENTS[1]
    takes = validator(root, message(root, "order.ship.requested")["payload"])
    (event, *_) = golden(Requested)
    assert takes.is_valid(event | {"data": event["data"] | {"input": {"to": "Ann"}}})
    assert not takes.is_valid(event | {"data": event["data"] | {"input": {}}})


def test_an_action_without_examples() -> None:
    """An action without examples is described as well."""
    bare = msgspec.structs.replace(TYPED, input=msgspec.UNSET, result=msgspec.UNSET, summary="")
    root = as_sent(asyncapi_document([bare]))
    assert "examples" not in message(root, "order.ship.requested")
    assert "examples" not in message(root, "order.ship.succeeded")
    assert root["channels"]["order.ship.requested"]["summary"] == "order:ship requested"


def test_null_is_an_example() -> None:
    """`null` is a valid example: many actions return nothing."""
    action = msgspec.structs.replace(TYPED, result=None)
    (example,) = message(as_sent(asyncapi_document([action])), "order.ship.succeeded")["examples"]
    assert example["payload"]["data"] == {"result": None}


def test_the_frame_of_the_document() -> None:
    """Version, licence and media type are set; every message has the members of CloudEvents and opstream's headers."""
    root = DOCUMENTS[1]
    assert root["asyncapi"] == "3.0.0"
    assert re.fullmatch(r"\d+\.\d+\.\d+", root["info"]["version"])
    assert root["info"]["license"]["name"] == "Apache-2.0"
    assert root["defaultContentType"] == CONTENT_TYPE
    for channel in root["channels"]:
        one = message(root, channel)
        assert one["contentType"] == CONTENT_TYPE
        assert one["headers"]["required"] == ["Nats-Msg-Id", "Content-Type"]
        assert resolved(root, one["correlationId"])["location"] == "$message.payload#/subject"
    for operation in root["operations"].values():
        assert resolved(root, operation["bindings"]) == {"nats": {"bindingVersion": "0.1.0"}}


def test_the_broker_is_a_placeholder() -> None:
    """The document shows neither the broker's address nor its credentials."""
    (server,) = DOCUMENTS[0]["servers"].values()
    assert server["host"] == "{host}:{port}"
    assert {name: variable["default"] for name, variable in server["variables"].items()} == {
        "host": "127.0.0.1",
        "port": "4222",
    }


def test_documents_belong_to_the_caller() -> None:
    """Changing one document changes no other."""
    first = asyncapi_document()
    first["components"]["schemas"]["CloudEvent"].clear()
    assert as_sent(asyncapi_document()) == DOCUMENTS[0]
