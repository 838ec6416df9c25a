"""The AsyncAPI document with actions: their schemas, translated from JSON Schema 2020-12."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from bookshelf.actions import upload_finish, upload_start
from opstream_api.asyncapi import action_asyncapi_document
from opstream_api.asyncapi.draft7 import is_plain, to_draft7
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.asyncapi import asyncapi_document
from opstream_schemas.names import Kind
from tests.support.api.service import INPUT, UPLOAD, spec
from tests.support.schemas.asyncapi import (
    CARRIED,
    LOST,
    Json,
    as_component,
    as_sent,
    awkward_actions,
    message,
    references,
    validator,
)

pytestmark = pytest.mark.unit

ACTIONS = (UPLOAD.action, "upload-finish")
VALUES: list[Any] = [
    *(None, True, 1, 7, -1.5, "", "x", "xy", [], [1], [1, 2], ["x"], {}, {"a": 1}, {"a": "x"}, {"a": None}),
    *({"branches": [{}]}, {"branches": [1]}, {"parent": 3}, {"b": 1}, {"b": 1, "c": 2}, {"a": 1, "b": 2}),
    *({"x y {z}?#": 1}, {"payload": 1, "schemaFormat": "x"}, {"schemaFormat": 1}, {"q": "a12.x"}, {"toString": "x"}),
    *({"constructor": 1}, {"a": 1, "b": 2, "c": 3}, json.loads('{"a": ' * 60 + "1" + "}" * 60)),
]


def translated(schema: Json) -> jsonschema_rs.Draft7Validator:
    """Return a validator of a translated schema."""
    reference, root = as_component(schema)
    return validator(root, reference)


@pytest.mark.parametrize("name", [name for name in CARRIED if name not in ("itself", "loop")])
def test_translated_schemas_mean_the_same(name: str) -> None:
    """A translated schema accepts and refuses the same values as the action's own."""
    mine = jsonschema_rs.Draft202012Validator(CARRIED[name])
    other = translated(CARRIED[name])
    assert [value for value in VALUES if mine.is_valid(value) != other.is_valid(value)] == []


@pytest.mark.parametrize("name", ["itself", "loop"])
def test_schemas_that_only_refer_to_themselves(name: str) -> None:
    """A schema that refers only to itself can't be evaluated, but its references lead to components."""
    _, root = as_component(CARRIED[name])
    components = root["components"]["schemas"]
    assert {reference.removeprefix("#/components/schemas/") for reference in references(components)} <= set(components)
    assert "Any JSON" not in str(components)


@pytest.mark.parametrize("name", LOST)
def test_a_schema_that_cannot_be_translated_accepts_everything(name: str) -> None:
    """Such a schema accepts everything, rather than refuse a valid event, and its description says so."""
    schema = to_draft7(LOST[name])
    assert list(schema) == ["description"]
    assert "can't express" in schema["description"]


def test_a_schema_without_end() -> None:
    """A schema that is nested too deeply accepts everything."""
    schema: Json = {}
    for _ in range(2000):
        schema = {"not": schema}
    assert list(to_draft7(schema)) == ["description"]


def test_members_that_tools_treat_specially() -> None:
    """No value in the document has a member that tools treat specially, at any depth."""
    assert is_plain({"a": [{"ref": "x"}, None, "$ref"]})
    for name in ("$ref", "__proto__"):
        assert not is_plain({"a": [{name: 1}]})


@pytest.mark.parametrize("action", [upload_start, upload_finish], ids=str)
def test_the_bookshelf(action: Any) -> None:
    """The inputs and results of its actions are translated completely, and their examples are valid."""
    root = as_sent(action_asyncapi_document([action.spec]))
    for event in ("requested", "succeeded"):
        channel = f"{action.spec.resource}.{action.spec.action}.{event}"
        one = message(root, channel)
        (example,) = one["examples"]
        validator(root, one["payload"]).validate(example["payload"])
    assert "can't express" not in str(root)


def test_awkward_actions_have_valid_examples_or_none() -> None:
    """All references of awkward schemas lead somewhere, and their examples are valid."""
    actions = [one for one in awkward_actions() if not one.summary.startswith(("itself", "loop"))]
    root = as_sent(action_asyncapi_document(actions))
    assert len(root["channels"]) == len(asyncapi_document()["channels"]) + 2 * len(actions)
    names = {f"#/components/{kind}/{name}" for kind, named in root["components"].items() for name in named}
    assert set(references(root["components"]["schemas"])) <= names
    shown = 0
    for channel in root["channels"]:
        one = message(root, channel)
        for example in one.get("examples", []):
            validator(root, one["payload"]).validate(example["payload"])
            shown += 1
    assert shown > len(actions)


def test_an_example_like_a_reference_is_left_out() -> None:
    """Tools would follow such an example."""
    action = msgspec.structs.replace(spec(), result_schema={"examples": [{"$ref": "#/x"}]})
    root = as_sent(action_asyncapi_document([action]))
    assert "examples" not in message(root, "book.upload-start.succeeded")
    assert "examples" in message(root, "book.upload-start.requested")


def test_actions_with_types_of_one_name_do_not_mix() -> None:
    """Each action has its own components."""
    other = msgspec.structs.replace(
        spec(Kind("book", "upload-finish")),
        input_schema={"$ref": "#/$defs/UploadStart", "$defs": {"UploadStart": {"type": "integer"}}},
    )
    root = as_sent(action_asyncapi_document([spec(), other]))
    data = {name: root["components"]["schemas"][f"book.{name}.requested.data"] for name in ACTIONS}
    inputs = {name: validator(root, data[name]["properties"]["input"]) for name in ACTIONS}
    assert [inputs[name].is_valid(INPUT) for name in ACTIONS] == [True, False]
    assert [inputs[name].is_valid(3) for name in ACTIONS] == [False, True]


def test_without_actions_it_is_the_one_that_opstream_writes() -> None:
    """The service and `opstream schemas` have the same channels."""
    no_one: list[ActionSpec] = []
    assert action_asyncapi_document(no_one) == asyncapi_document()
