"""The OpenAPI document: it is complete, and all its references lead somewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import jsonschema_rs
import msgspec
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31

from opstream_api.errors import STATUS_OF
from opstream_api.http.cors import EXPOSED
from opstream_api.http.document_cache import DocumentCache
from opstream_api.openapi import openapi_document
from opstream_journal import ActionCatalog
from opstream_schemas.action_spec import DAY_SECONDS, ActionSpec
from opstream_schemas.errors import ErrorCode
from opstream_schemas.names import Kind
from opstream_schemas.status_monitor import StatusMonitor
from tests.support.api.service import INPUT, UPLOAD, Upload, spec

pytestmark = pytest.mark.unit

FINISH = Kind("book", "upload-finish")
ALWAYS = [
    "/status/{operationId}",
    "/status/{operationId}:cancel",
    "/status/{operationId}:signal/{name}",
    "/status/{operationId}:retry",
    "/status/{operationId}/events",
    "/status/{operationId}/payloads/{payload}",
    "/payloads",
    "/payloads/{operationId}/{name}",
    "/schedules",
    "/schedules/{name}",
    "/schedules/{name}:preview",
    "/schedules/{name}:trigger",
    "/schedules/{name}:backfill",
    "/schedules/{name}:pause",
    "/schedules/{name}:resume",
    "/schedules/{name}/history",
    "/actions",
    "/actions/{kind}:pause",
    "/actions/{kind}:resume",
    "/actions/{kind}:withdraw",
    "/webhooks/deliveries",
    "/webhooks/deliveries/{operationId}/{endpoint}:redeliver",
    "/subscribers/parked",
    "/subscribers/parked/{durable}/{sequence}:retry",
    "/openapi.json",
    "/asyncapi.json",
    "/docs",
    "/healthz",
    "/readyz",
]
GOLDEN = Path(__file__).parents[2] / "schemas" / "golden"


class Tree(msgspec.Struct, forbid_unknown_fields=True):
    """A type that refers to itself."""

    branches: list[Tree] = []


def document(*specs: ActionSpec, public_url: str = "") -> dict[str, Any]:
    """Build the document as clients see it, through JSON."""
    return cast("dict[str, Any]", json.loads(msgspec.json.encode(openapi_document(specs, public_url))))


def submit_parameters(root: dict[str, Any]) -> set[str]:
    """Return the parameters of each submit, by the last part of their reference."""
    submits = [path["post"] for name, path in root["paths"].items() if name.endswith(":upload-start")]
    names = [{one["$ref"].rpartition("/")[2] for one in submit["parameters"]} for submit in submits]
    return set.intersection(*names)


def references(node: Any) -> Iterator[str]:
    """Return every `$ref` in a document."""
    if isinstance(node, list):
        for item in node:
            yield from references(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                yield value
            else:
                yield from references(value)


def target(root: Any, reference: str) -> Any:
    """Return the target of a reference."""
    node = root
    for step in reference.removeprefix("#/").split("/"):
        node = node[step.replace("~1", "/").replace("~0", "~")]
    return node


def resolved(root: Any, node: Any) -> Any:
    """Return a part of the document, with a reference followed."""
    return target(root, node["$ref"]) if "$ref" in node else node


def operations(root: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return every operation with its path."""
    for path, item in root["paths"].items():
        for operation in item.values():
            yield path, operation


def validator(root: dict[str, Any], name: str) -> jsonschema_rs.Draft202012Validator:
    """Build a validator of one component's schema."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": root["components"]}
    return jsonschema_rs.Draft202012Validator(schema, offline=True)


def input_validator(root: dict[str, Any], path: str) -> jsonschema_rs.Draft202012Validator:
    """Build a validator of an action's input."""
    (content,) = root["paths"][path]["post"]["requestBody"]["content"].values()
    return jsonschema_rs.Draft202012Validator(content["schema"] | {"components": root["components"]}, offline=True)


def test_only_probes_may_name_any_host() -> None:
    """Every other path can refuse a request for an unknown host."""
    without = {path for path, item in operations(document(spec())) if "421" not in item["responses"]}
    assert without == {"/healthz", "/readyz"}


def test_each_action_has_its_own_paths() -> None:
    """One path with an id and one without, besides those of every service."""
    paths = document(spec(), spec(FINISH))["paths"]
    assert list(paths) == [
        "/book/{id}:upload-start",
        "/book:upload-start",
        "/book/{id}:upload-finish",
        "/book:upload-finish",
        *ALWAYS,
    ]


def test_a_service_without_actions_has_a_document() -> None:
    """There is a document before the first runner starts."""
    assert list(document()["paths"]) == ALWAYS


def test_every_reference_leads_somewhere() -> None:
    """Also references inside of the actions' schemas, which led into `$defs`."""
    root = document(spec(), spec(FINISH, input_type=Tree))
    for reference in references(root):
        assert reference.startswith("#/components/")
        assert target(root, reference) is not None


def test_the_documents_form() -> None:
    """It follows OpenAPI 3.1's rules for names, ids and parameters."""
    root = document(spec(), spec(FINISH), public_url="https://api.test")
    assert root["openapi"].startswith("3.1.")
    assert root["servers"] == [{"url": "https://api.test"}]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for kind in root["components"].values() for name in kind)
    ids = [operation["operationId"] for _, operation in operations(root)]
    assert len(set(ids)) == len(ids)
    tags = {tag["name"] for tag in root["tags"]}
    described = {tag["name"]: tag["description"] for tag in root["tags"]}
    resource = spec().resource
    assert described[resource] == f"The actions of the resource `{resource}`."  # with no "a" or "an" before it
    for path, operation in operations(root):
        parameters = [resolved(root, parameter) for parameter in operation["parameters"]]
        declared = {parameter["name"] for parameter in parameters if parameter["in"] == "path"}
        assert declared == set(re.findall(r"{(\w+)}", path))
        assert set(operation["tags"]) <= tags
        assert operation["summary"]
        for answer in operation["responses"].values():
            assert resolved(root, answer)["description"]
            for link in answer.get("links", {}).values():
                assert link["operationId"] in ids


def test_every_schema_is_valid() -> None:
    """Every schema is valid in the default dialect of OpenAPI 3.1."""
    root = document(spec(), spec(FINISH, input_type=Tree))
    for name, schema in root["components"]["schemas"].items():
        jsonschema_rs.Draft202012Validator(schema | {"components": root["components"]}, offline=True)
        validator(root, name)


def test_the_document_is_openapi() -> None:
    """It is valid by OpenAPI's own JSON Schema, which schemathesis has."""
    for root in (
        document(),
        document(spec(), spec(FINISH, input_type=Tree), public_url="https://api.test"),
        openapi_document([spec()], has_access=True, has_index=True),
    ):
        jsonschema_rs.Draft202012Validator(OPENAPI_31, offline=True).validate(root)


def test_callbacks_only_where_hosts_are_allowed() -> None:
    """Only a service that accepts callbacks describes `Operation-Callback`."""
    without, calling_back = (
        submit_parameters(openapi_document([spec()], has_callbacks=is_it)) for is_it in (False, True)
    )
    assert calling_back - without == {"Operation-Callback"}
    assert "Operation-Id" in without


def test_every_response_names_its_headers() -> None:
    """Every response has the request id, every error its code, and a retryable one `Retry-After`."""
    root = document(spec())
    for _, operation in operations(root):
        for status, answer in operation["responses"].items():
            sent = resolved(root, answer)["headers"]
            assert {"x-ms-request-id", "x-ms-client-request-id"} <= set(sent)
            assert ("x-ms-error-code" in sent) == (status >= "400")
            assert "Retry-After" in sent or status != "503"


def test_each_header_that_pages_may_read_is_described() -> None:
    """What browsers get from another site is what the document names."""
    root = openapi_document([spec()], has_access=True, has_index=True)
    found = {
        name
        for _, operation in operations(root)
        for response in operation["responses"].values()
        for name in resolved(root, response).get("headers", {})
    }
    assert found >= set(EXPOSED)


def test_every_error_has_an_example_of_each_code() -> None:
    """With the code's status and a valid body; no code of an error response is missing."""
    specs = [spec(exclusive="resource", on_conflict="reject")]
    seen = set()
    for has_access, has_index in ((False, False), (True, False), (False, True), (True, True)):
        seen |= error_codes(openapi_document(specs, has_access=has_access, has_index=has_index))
    # Another method belongs to no operation of the document, and a service without an index has no list in it.
    assert seen == set(STATUS_OF) - {"MethodNotAllowed", "IndexOff"}


def error_codes(root: dict[str, Any]) -> set[str]:
    """The codes of all error responses of a document, each with its examples checked."""
    seen = set()
    for _, operation in operations(root):
        for status, answer in operation["responses"].items():
            if status < "400":
                continue
            refusal = resolved(root, answer)
            codes = refusal["headers"]["x-ms-error-code"]["schema"]["enum"]
            shown = {
                name: resolved(root, one) for name, one in refusal["content"]["application/json"]["examples"].items()
            }
            assert list(shown) == codes
            for code, one in shown.items():
                assert STATUS_OF[ErrorCode(code)] == int(status)
                assert one["value"]["error"]["code"] == code
                assert validator(root, "ErrorBody").is_valid(one["value"])
            seen |= set(codes)
    return seen


BY_TOKEN = {"/status/{operationId}": "statusToken", "/status/{operationId}:signal/{name}": "signalToken"}
BY_TOKEN["/payloads/{operationId}/{name}"] = "uploadToken"


def test_a_service_that_asks_for_credentials_says_so() -> None:
    """Each path but those of probes needs a key and may answer 401; what needs a scope may answer 403."""
    root = openapi_document([spec()], has_access=True)
    assert root["security"] == [{"bearer": []}]
    for path, operation in operations(root):
        statuses = set(operation["responses"])
        if path in {"/healthz", "/readyz"}:
            assert (operation["security"], "401" in statuses) == ([], False)
            continue
        # A status token reads the status of one operation, a signal's sends one signal, and neither anything else.
        is_opened = path in BY_TOKEN and operation["operationId"] != "erase"
        opens = [{"bearer": []}, {BY_TOKEN[path]: []}] if is_opened else None
        assert operation.get("security") == opens
        assert "401" in statuses
        if "202" in statuses and not path.startswith(("/schedules/", "/status/")):
            assert resolved(root, operation["parameters"][-1])["name"] == "Prefer"
            assert "Preference-Applied" in operation["responses"]["202"]["headers"]
        assert ("403" in statuses) == (operation["tags"] != ["service"])
    assert "security" not in openapi_document([spec()])


@pytest.mark.parametrize(
    "policy",
    [{}, {"on_conflict": "reject"}, {"exclusive": "resource"}, {"exclusive": "resource", "on_conflict": "replace"}],
)
def test_only_an_action_that_rejects_can_be_busy(policy: dict[str, Any]) -> None:
    """Clients of other actions need not handle a 409."""
    submits = [operation for path, operation in operations(document(spec(**policy))) if path.endswith("upload-start")]

    assert len(submits) == 2
    assert not any("409" in operation["responses"] for operation in submits)


def test_every_example_is_valid() -> None:
    """Each example matches the schema beside it."""
    root = document(spec(), spec(FINISH))
    count = 0
    for _, operation in operations(root):
        answers = [resolved(root, answer) for answer in operation["responses"].values()]
        for part in [operation.get("requestBody", {}), *answers]:
            for media in part.get("content", {}).values():
                schema = {**media["schema"], "components": root["components"]}
                takes = jsonschema_rs.Draft202012Validator(schema, validate_formats=True, offline=True)
                for one in media.get("examples", {}).values():
                    takes.validate(resolved(root, one)["value"])
                    count += 1
    assert count > 50


def test_a_submit_is_described() -> None:
    """Its input, its response headers, its errors, and what Azure's tools need to poll by themselves."""
    operation = document(spec())["paths"]["/book/{id}:upload-start"]["post"]
    assert operation["summary"] == "Test book:upload-start"
    assert operation["requestBody"]["required"]
    assert operation["requestBody"]["content"]["application/json"]["examples"]["example"]["value"] == {
        "title": "string",
        "files": [{"path": "string", "hash": "string"}],
        "note": {"path": "string", "hash": "string"},
    }
    assert set(operation["responses"]) == {*("202", "400", "403", "404", "408", "413", "415", "421", "500", "503")}
    assert {"Operation-Location", "Operation-Id", "Retry-After", "Repeatability-Result"} <= set(
        operation["responses"]["202"]["headers"]
    )
    assert operation["x-ms-long-running-operation"] is True
    assert operation["x-ms-long-running-operation-options"] == {"final-state-via": "operation-location"}


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ({}, "readable for 1 day after the end."),
        ({"retention": 7 * DAY_SECONDS, "retention_canceled": 7 * DAY_SECONDS}, "readable for 7 days after the end."),
        ({"retention_failed": 90 * DAY_SECONDS}, "readable for 1 day after the end, 90 days if it failed."),
        (
            {"retention": 2 * DAY_SECONDS, "retention_failed": 90 * DAY_SECONDS, "retention_canceled": DAY_SECONDS},
            "readable for 2 days after the end, 90 days if it failed, 1 day if it was canceled.",
        ),
    ],
)
def test_the_retention_is_described(policy: dict[str, float], told: str) -> None:
    """The retention is described by outcome, if it differs."""
    operation = document(spec(**policy))["paths"]["/book/{id}:upload-start"]["post"]
    assert operation["description"].endswith(told)


def test_an_action_without_required_input() -> None:
    """A request for it may have no body."""
    operation = document(spec(input_type=Tree))["paths"]["/book:upload-start"]["post"]
    assert not operation["requestBody"]["required"]


@pytest.mark.parametrize(
    "broken", [{"type": "nonsense"}, {"type": "string", "pattern": "^(?:Ada|Bob) L$"}, {"not": {}}]
)
def test_an_action_without_examples(broken: dict[str, Any]) -> None:
    """It is described without examples; the other paths use another action's."""
    root = document(msgspec.structs.replace(spec(), input_schema=broken, result_schema=broken))
    operation = root["paths"]["/book:upload-start"]["post"]
    assert "examples" not in operation["requestBody"]["content"]["application/json"]
    assert list(operation["responses"]["202"]["content"]["application/json"]["examples"]) == ["new"]
    shown = root["paths"]["/status/{operationId}"]["get"]["responses"]["200"]["content"]["application/json"]["examples"]
    assert shown["succeeded"]["value"]["kind"] == "book:publish"


def test_the_monitor_is_the_contracts() -> None:
    """Its members are those of the struct, and every state is valid."""
    root = document()
    _, contract = msgspec.json.schema_components([StatusMonitor])
    described = root["components"]["schemas"]["StatusMonitor"]
    assert list(described["properties"]) == list(contract["StatusMonitor"]["properties"])
    assert described["required"] == contract["StatusMonitor"]["required"]
    files = sorted(GOLDEN.glob("monitor.*.json"))
    assert len(files) == 14
    for file in files:
        validator(root, "StatusMonitor").validate(json.loads(file.read_bytes()))


def test_events_are_the_journals() -> None:
    """Known types are valid only in their own form; an event of a later version is accepted."""
    takes = validator(document(), "History")
    files = [file for file in sorted(GOLDEN.glob("*.json")) if not file.name.startswith(("monitor.", "operation."))]
    assert len(files) > 8
    for file in files:
        event = json.loads(file.read_bytes())
        takes.validate({"value": [event]})
        takes.validate({"value": [{**event, "type": "opstream.action.later.v1", "data": {}}]})
        assert not takes.is_valid({"value": [{**event, "position": 0}]})


def test_schemas_that_were_moved_mean_the_same() -> None:
    """The component of the input accepts and refuses the same values as the action's own schema."""
    component = input_validator(document(spec(), spec(FINISH, input_type=Upload)), "/book:upload-start")
    assert component.is_valid(INPUT)
    assert not component.is_valid({"title": "x", "files": [{"path": "p"}]})


def test_actions_with_types_of_one_name_do_not_mix() -> None:
    """Each action has its own components."""
    other = msgspec.structs.replace(
        spec(FINISH), input_schema={"$ref": "#/$defs/UploadStart", "$defs": {"UploadStart": {"type": "integer"}}}
    )
    root = document(spec(), other)
    assert input_validator(root, "/book:upload-finish").is_valid(3)
    assert input_validator(root, "/book:upload-start").is_valid(INPUT)


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
    """They become valid names, and stay distinct."""
    schema = {
        "anyOf": [{"$ref": "#/$defs/a[b"}, {"$ref": "#/$defs/a~1b"}],
        "$defs": {"a[b": {"type": "integer"}, "a/b": {"type": "string"}},
    }
    root = document(msgspec.structs.replace(spec(), input_schema=schema))
    component = validator(root, "book.upload-start.input")
    assert [component.is_valid(value) for value in (1, "x", None)] == [True, True, False]


def test_the_monitor_of_an_action_shows_its_result() -> None:
    """The 202 of a repeated request may have it."""
    component = validator(document(spec()), "book.upload-start.monitor")
    assert component.is_valid({"id": "1", "status": "NotStarted"})
    assert component.is_valid({"id": "1", "status": "Succeeded", "result": {"transaction": "t"}})
    assert not component.is_valid({"id": "1", "status": "Succeeded", "result": {"transaction": 1}})


class FakeCatalog:
    """A catalog that changes when the test does it."""

    def __init__(self) -> None:
        self.specs: Mapping[Kind, ActionSpec] = {}
        self._listeners: list[Callable[[], None]] = []

    def on_change(self, listener: Callable[[], None]) -> None:
        """As the catalog's."""
        self._listeners.append(listener)

    def offer(self, *specs: ActionSpec) -> None:
        """Change the actions."""
        self.specs = {one.kind: one for one in specs}
        for listener in self._listeners:
            listener()


def test_the_document_is_built_when_the_catalog_changes() -> None:
    """It is not built for each request."""
    catalog = FakeCatalog()
    kept = DocumentCache(cast("ActionCatalog", catalog), openapi_document)
    first = kept.encoded()
    assert kept.encoded() is first
    catalog.offer(spec())
    assert f"/{UPLOAD.resource}:{UPLOAD.action}".encode() in kept.encoded()
    catalog.offer(spec(), spec(FINISH))
    two = list(json.loads(kept.encoded())["paths"])
    assert [path for path in two if path not in ALWAYS] == [
        "/book/{id}:upload-finish",
        "/book:upload-finish",
        "/book/{id}:upload-start",
        "/book:upload-start",
    ]
    catalog.offer(spec(version=2, input_type=Tree))
    (operation,) = json.loads(kept.encoded())["paths"]["/book:upload-start"].values()
    assert "version 2" in operation["description"]
