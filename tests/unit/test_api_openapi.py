"""The OpenAPI document: complete, and with references that lead somewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import jsonschema_rs
import msgspec
import pytest

from opstream_api.openapi import Document, openapi
from opstream_journal import Catalog
from opstream_schemas.catalog import ActionSpec
from opstream_schemas.names import Kind
from tests.support.api import INPUT, UPLOAD, Upload, spec

pytestmark = pytest.mark.unit

FINISH = Kind("book", "upload-finish")


class Tree(msgspec.Struct, forbid_unknown_fields=True):
    """A type that refers to itself."""

    branches: list[Tree] = []


def document(*specs: ActionSpec, public_url: str = "") -> dict[str, Any]:
    """As clients see it: through JSON."""
    return cast("dict[str, Any]", json.loads(msgspec.json.encode(openapi(specs, public_url))))


def references(node: Any) -> Iterator[str]:
    """Every `$ref` in a document."""
    if isinstance(node, list):
        for item in node:
            yield from references(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                yield value
            else:
                yield from references(value)


def found(root: Any, reference: str) -> Any:
    """What a reference points to."""
    node = root
    for step in reference.removeprefix("#/").split("/"):
        node = node[step.replace("~1", "/").replace("~0", "~")]
    return node


def validator(root: dict[str, Any], name: str) -> jsonschema_rs.Draft202012Validator:
    """A component's schema, usable on its own."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": root["components"]}
    return jsonschema_rs.Draft202012Validator(schema, offline=True)


def test_each_action_has_its_own_paths() -> None:
    """With an id and without; besides those of every service."""
    paths = document(spec(), spec(FINISH))["paths"]
    assert list(paths) == [
        "/book/{id}:upload-start",
        "/book:upload-start",
        "/book/{id}:upload-finish",
        "/book:upload-finish",
        "/status/{operationId}",
        "/healthz",
        "/readyz",
    ]


def test_a_service_without_actions_has_a_document() -> None:
    """Before the first runner came."""
    assert list(document()["paths"]) == ["/status/{operationId}", "/healthz", "/readyz"]


def test_every_reference_leads_somewhere() -> None:
    """Also those inside of the actions' schemas, which pointed into `$defs`."""
    root = document(spec(), spec(FINISH, input_type=Tree))
    for reference in references(root):
        assert reference.startswith("#/components/")
        assert found(root, reference) is not None


def test_the_documents_form() -> None:
    """What OpenAPI 3.1 asks of names, ids and parameters."""
    root = document(spec(), spec(FINISH), public_url="https://api.test")
    assert root["openapi"].startswith("3.1.")
    assert root["servers"] == [{"url": "https://api.test"}]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for kind in root["components"].values() for name in kind)
    operations = [operation for item in root["paths"].values() for operation in item.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    for path, item in root["paths"].items():
        for operation in item.values():
            parameters = [found(root, parameter["$ref"]) for parameter in operation.get("parameters", [])]
            declared = {parameter["name"] for parameter in parameters if parameter["in"] == "path"}
            assert declared == set(re.findall(r"{(\w+)}", path))
            assert all(answer["description"] for answer in operation["responses"].values())


def test_every_schema_is_one() -> None:
    """By the dialect that OpenAPI 3.1 has by default."""
    root = document(spec(), spec(FINISH, input_type=Tree))
    for name, schema in root["components"]["schemas"].items():
        jsonschema_rs.Draft202012Validator(schema | {"components": root["components"]}, offline=True)
        validator(root, name)


def test_a_submit_is_described() -> None:
    """Its input, the headers of its answer, and its errors."""
    operation = document(spec())["paths"]["/book/{id}:upload-start"]["post"]
    assert operation["summary"] == "Test book:upload-start"
    assert set(operation["responses"]) == {"202", "400", "404", "413", "415", "500", "503"}
    assert set(operation["responses"]["202"]["headers"]) == {"Operation-Location", "Retry-After", "x-ms-request-id"}
    assert "Retry-After" in operation["responses"]["503"]["headers"]
    assert "InvalidInput" in operation["responses"]["400"]["description"]


def test_schemas_that_were_moved_mean_the_same() -> None:
    """The input's component takes and refuses what the action's own schema does."""
    taken = validator(document(spec(), spec(FINISH, input_type=Upload)), "book.upload-start.input")
    assert taken.is_valid(INPUT)
    assert not taken.is_valid({"title": "x", "files": [{"path": "p"}]})


def test_actions_with_types_of_one_name_do_not_mix() -> None:
    """Each action has its own components."""
    other = msgspec.structs.replace(
        spec(FINISH), input_schema={"$ref": "#/$defs/UploadStart", "$defs": {"UploadStart": {"type": "integer"}}}
    )
    root = document(spec(), other)
    assert validator(root, "book.upload-finish.input").is_valid(3)
    assert validator(root, "book.upload-start.input").is_valid(INPUT)


def test_values_in_a_schema_are_left_alone() -> None:
    """A default or constant may look like a reference."""
    schema = {"$id": "urn:x", "properties": {"a": {"default": {"$ref": "#/$defs/x"}}, "b": {"$ref": "#"}}}
    root = document(msgspec.structs.replace(spec(), input_schema=schema))
    assert root["components"]["schemas"]["book.upload-start.input"] == {
        "properties": {
            "a": {"default": {"$ref": "#/$defs/x"}},
            "b": {"$ref": "#/components/schemas/book.upload-start.input"},
        }
    }


def test_odd_names_of_definitions_become_component_names() -> None:
    """And stay different ones."""
    schema = {
        "anyOf": [{"$ref": "#/$defs/a[b"}, {"$ref": "#/$defs/a~1b"}],
        "$defs": {"a[b": {"type": "integer"}, "a/b": {"type": "string"}},
    }
    root = document(msgspec.structs.replace(spec(), input_schema=schema))
    taken = validator(root, "book.upload-start.input")
    assert [taken.is_valid(value) for value in (1, "x", None)] == [True, True, False]


def test_the_monitor_of_an_action_shows_its_result() -> None:
    """A 202 to a request that was sent again may hold it."""
    taken = validator(document(spec()), "book.upload-start.monitor")
    assert taken.is_valid({"id": "1", "status": "NotStarted"})
    assert taken.is_valid({"id": "1", "status": "Succeeded", "result": {"transaction": "t"}})
    assert not taken.is_valid({"id": "1", "status": "Succeeded", "result": {"transaction": 1}})


class FakeCatalog:
    """A catalog that changes when the test says so."""

    def __init__(self) -> None:
        self.specs: Mapping[Kind, ActionSpec] = {}
        self._listeners: list[Callable[[], None]] = []

    def on_change(self, listener: Callable[[], None]) -> None:
        """As the catalog's."""
        self._listeners.append(listener)

    def offer(self, *specs: ActionSpec) -> None:
        """Change it."""
        self.specs = {one.kind: one for one in specs}
        for listener in self._listeners:
            listener()


def test_the_document_is_built_when_the_catalog_changes() -> None:
    """And not for each request."""
    catalog = FakeCatalog()
    kept = Document(cast("Catalog", catalog), "")
    first = kept.encoded()
    assert kept.encoded() is first
    catalog.offer(spec())
    assert f"/{UPLOAD.resource}:{UPLOAD.action}".encode() in kept.encoded()
