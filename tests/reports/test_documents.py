"""Reports about OpenAPI documents and what generators make of them."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec
import pytest

from opstream_api.openapi import openapi_document
from tests.support.api.typed_actions import typed_specs
from tests.support.reports.report import Report, report

pytestmark = pytest.mark.unit

_COMPONENTS: Final = "unit/api/openapi/test_schema_components.py"
_GENERATORS: Final = "e2e/api/test_generators.py"

REPORTS: Final[list[Report]] = [
    report(
        "openapi-generators/openapi-python-client/issues/652",
        "two components with one title were one class, and the second one was left out",
        f"{_COMPONENTS}::test_a_type_is_one_component",
        f"{_GENERATORS}::test_the_python_client_has_every_action",
    ),
    report(
        "openapi-generators/openapi-python-client/issues/783",
        "a response with the name of another one was omitted from the client",
        f"{_GENERATORS}::test_the_python_client_has_every_action",
    ),
    report(
        "openapi-generators/openapi-python-client/issues/1256",
        "a type inside of another one had the class name of a component, and all that used it was removed",
        "test_no_object_inside_of_a_type_has_a_title",
    ),
    report(
        "stacklok/codegate/issues/1371",
        "two components whose names differ by punctuation only became one class",
        f"{_COMPONENTS}::test_names_that_become_one_class_are_told_apart",
    ),
    report(
        "datamodel-code-generator/datamodel-code-generator/issues/894",
        "one type became several classes, and values of one were refused by the other",
        f"{_COMPONENTS}::test_a_type_is_one_component",
    ),
    report(
        "APIDevTools/swagger-parser/issues/132",
        "references in the mapping of a discriminator were left as they were while all others were resolved",
        f"{_COMPONENTS}::test_every_reference_of_a_document_leads_somewhere",
    ),
    report(
        "RicoSuter/NSwag/issues/4475",
        "a mapping with bare names of schemas was taken for files",
        f"{_COMPONENTS}::test_discriminators_lead_to_the_components",
    ),
    report(
        "docling-project/docling-serve/issues/283",
        "the tag of a union was optional in its parts, and the generator refused them",
        "test_every_part_of_a_tagged_union_requires_its_tag",
    ),
    report(
        "microsoft/typespec/issues/2217",
        "an operation that returns null could not be described",
        f"{_COMPONENTS}::test_an_action_without_a_result_has_a_plain_monitor",
    ),
    report(
        "openapi-generators/openapi-python-client/issues/1371",
        "a generated client failed on null in place of an object that it knew",
        "test_what_can_be_null_says_so",
    ),
]


def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(msgspec.json.encode(openapi_document(typed_specs())))
    return document


def _schemas(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, list):
        return [found for item in node for found in _schemas(item)]
    if not isinstance(node, dict):
        return []
    return [node, *(found for key, value in node.items() if key != "examples" for found in _schemas(value))]


def test_every_part_of_a_tagged_union_requires_its_tag() -> None:
    """And the tag has one value, the one in the mapping."""
    schemas = _document()["components"]["schemas"]
    unions = [one["discriminator"] for one in _schemas(schemas) if "propertyName" in one.get("discriminator", ())]
    assert unions
    for union in unions:
        for tag, reference in union["mapping"].items():
            part = schemas[reference.rpartition("/")[2]]
            assert union["propertyName"] in part["required"]
            assert part["properties"][union["propertyName"]]["enum"] == [tag]


def test_no_object_inside_of_a_type_has_a_title() -> None:
    """Generators name its class by the member, which no other class has."""
    contract = openapi_document(())["components"]["schemas"].keys()
    types = [schema for name, schema in _document()["components"]["schemas"].items() if name not in contract]
    inner = [one for schema in types for one in _schemas(list(schema.get("properties", {}).values()))]
    assert [one["title"] for one in inner if one.get("type") == "object" and "title" in one] == []


def test_what_can_be_null_says_so() -> None:
    """A member that may be null, such as the parent of a tree, has null among its types."""
    parent = _document()["components"]["schemas"]["Tree"]["properties"]["parent"]
    assert {"type": "null"} in parent["anyOf"]
