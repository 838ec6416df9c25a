"""Components of types: every reference leads somewhere, and each type is one component under a name of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import combinations
from typing import Any, Final

import jsonschema_rs
import msgspec
import pytest

from opstream_api.asyncapi import action_asyncapi_document
from opstream_api.openapi import openapi_document
from opstream_api.openapi.schema_components import RoleSchema, to_components
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.json_schemas import json_schemas
from tests.support.api.service import spec
from tests.support.api.typed_actions import typed_specs

pytestmark = pytest.mark.unit

PREFIX: Final = "#/components/schemas/"
Json = dict[str, Any]


def as_sent(document: Json) -> Json:
    """Return a document as clients see it, through JSON."""
    sent: Json = json.loads(msgspec.json.encode(document))
    return sent


def pointers(node: Any) -> Iterator[str]:
    """Return every text of a document that looks like a reference into it, under whatever member."""
    if isinstance(node, str) and node.startswith("#/"):
        yield node
    elif isinstance(node, list):
        for item in node:
            yield from pointers(item)
    elif isinstance(node, dict):
        for value in node.values():
            yield from pointers(value)


def resolve(root: Json, reference: str) -> None:
    """Follow a reference; one to a schema as a validator does, with all references behind it.

    Raises:
        KeyError, jsonschema_rs.ValidationError: it leads nowhere.
    """
    node: Any = root
    for step in reference.removeprefix("#/").split("/"):
        key = step.replace("~1", "/").replace("~0", "~")
        node = node[int(key)] if isinstance(node, list) else node[key]
    if "/schemas/" in reference:
        jsonschema_rs.Draft202012Validator({"components": root["components"], "$ref": reference}, offline=True)


def input_schema(root: Json, name: str) -> Json:
    """Return the schema of an action's input in an OpenAPI document."""
    schema: Json = root["paths"][f"/typed:{name}"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return schema


def component_of(root: Json, name: str) -> str:
    """Return the name of the component that is an action's input."""
    return str(input_schema(root, name)["$ref"].removeprefix(PREFIX))


def openapi(*specs: ActionSpec) -> Json:
    """Return the OpenAPI document of these actions."""
    return as_sent(openapi_document(specs))


@pytest.mark.parametrize("make", [openapi_document, action_asyncapi_document], ids=["openapi", "asyncapi"])
def test_every_reference_of_a_document_leads_somewhere(make: Any) -> None:
    """Whatever types actions have: tagged unions, generic, recursive and shared types, two types of one name."""
    root = as_sent(make(typed_specs()))
    found = sorted(set(pointers(root)))
    assert len(found) > 50
    for reference in found:
        resolve(root, reference)


def test_every_reference_of_what_opstream_schemas_writes_leads_somewhere() -> None:
    """`opstream schemas` writes the events' schemas, and the events' document without actions."""
    for root in (*json_schemas().values(), action_asyncapi_document(())):
        for reference in pointers(as_sent(root)):
            resolve(as_sent(root), reference)


def test_discriminators_lead_to_the_components() -> None:
    """The mapping names the same components as the union itself, in the root of a schema and inside of it."""
    root = openapi(*typed_specs())
    for union in (
        root["components"]["schemas"]["typed.union.input"],
        root["components"]["schemas"]["Visit"]["properties"]["pet"],
        root["components"]["schemas"]["Dog"]["properties"]["friends"]["items"],
    ):
        mapping = {"cat": f"{PREFIX}Cat", "dog": f"{PREFIX}Dog"}
        assert union["discriminator"] == {"propertyName": "type", "mapping": mapping}
        assert [one["$ref"] for one in union["anyOf"]] == list(mapping.values())


def test_members_named_like_keywords_have_their_types() -> None:
    """A member that is called `default` or `examples` is no keyword, so its schema is rewritten as any other."""
    members = openapi(*typed_specs("tagged"))["components"]["schemas"]["Visit"]["properties"]
    assert members["default"] == {"$ref": f"{PREFIX}Cat"}
    assert members["examples"]["additionalProperties"] == {"$ref": f"{PREFIX}Dog"}


@pytest.mark.parametrize("make", [openapi_document, action_asyncapi_document], ids=["openapi", "asyncapi"])
def test_a_type_is_one_component(make: Any) -> None:
    """Actions that share a type share its component, and no two components have the same title."""
    schemas = as_sent(make(typed_specs()))["components"]["schemas"]
    for name in ("Visit", "Cat", "Dog", "Tree", "Everything"):
        assert [found for found in schemas if found.rpartition(".")[2] == name] == [name]
    titles = [schema["title"] for schema in schemas.values() if "title" in schema]
    assert len(titles) == len(set(titles))


def test_types_of_one_name_have_names_of_their_own() -> None:
    """Also in one schema; and a type with the name of one of the contract's own does not replace that."""
    root = openapi(*typed_specs())
    schemas = root["components"]["schemas"]
    first, second = (component_of(root, name) for name in ("shared", "other"))
    assert (first, second) == ("typed.map.Request", "typed.other.Request")
    assert list(schemas[first]["properties"]) == ["how"]
    assert list(schemas[second]["properties"]) == ["number"]
    pair = [one["$ref"] for one in schemas["typed.both.input"]["prefixItems"]]
    assert pair == [PREFIX + first, PREFIX + second]
    assert "NotStarted" in schemas["Status"]["enum"]
    assert list(schemas["typed.everything.Status"]["properties"]) == ["word"]


def test_two_types_of_one_name_in_one_schema() -> None:
    """They have the names of their modules, since nothing else tells them apart."""
    (first, second) = openapi(*typed_specs("both"))["components"]["schemas"]["typed.both.input"]["prefixItems"]
    assert first["$ref"].endswith("typed.both.input.tests.support.api.typed_actions.Request")
    assert second["$ref"].endswith("typed.both.result.Request")


def test_names_do_not_depend_on_other_actions() -> None:
    """An action that comes or goes, first or last, renames no type, unless it has another type of that name."""
    alone = {name: component_of(openapi(*typed_specs(name)), name) for name in ("tagged", "shared", "tree")}
    assert alone == {"tagged": "Visit", "shared": "Request", "tree": "Tree"}
    others = [one for one in typed_specs() if one.action in ("everything", "generic", "plain", "union", "nothing")]
    for count in range(len(others) + 1):
        for few in combinations(others, count):
            root = openapi(*few, *typed_specs(*alone), *reversed(few))
            assert {name: component_of(root, name) for name in alone} == alone


def test_two_types_of_one_name_keep_their_names() -> None:
    """Whatever other actions there are, and in whatever order they were announced."""
    others = typed_specs("tagged", "everything", "union", "plain")
    for count in range(len(others) + 1):
        for few in combinations(others, count):
            for specs in ([*typed_specs("shared", "other"), *few], [*few, *typed_specs("other", "shared")]):
                root = openapi(*specs)
                names = [component_of(root, name) for name in ("shared", "other")]
                assert names == ["typed.shared.Request", "typed.other.Request"]


def test_names_that_become_one_class_are_told_apart() -> None:
    """A generator drops punctuation and capitals, so `Book_Page` and `BookPage` are one class for it."""
    schemas = [_role(action, title) for action, title in (("a.x", "Book_Page"), ("a.y", "BookPage"), ("a.z", "Page"))]
    found = [one.reference["$ref"].removeprefix(PREFIX) for one in to_components(schemas).values()]
    assert found == ["a.x.Book_Page", "a.y.BookPage", "Page"]


def test_equal_types_that_nothing_tells_apart() -> None:
    """Types whose candidates are all taken get a part of their hash, so no name is given twice."""
    schemas = [_role("a.x", "Page"), _role("a.x", "Page", "result", kind="string")]
    names = {one.reference["$ref"].removeprefix(PREFIX) for one in to_components(schemas).values()}
    assert names == {"a.x.input.Page", "a.x.result.Page"}
    reserved = ["Page", "a.x.Page", "a.x.input.Page"]
    (last,) = (one.reference["$ref"] for one in to_components(schemas[:1], reserved).values())
    assert last.startswith(f"{PREFIX}Page.")


def test_a_type_that_refers_to_its_root_is_not_shared() -> None:
    """Its root is another schema in each action."""
    schema = {"$defs": {"T": {"title": "T", "items": {"$ref": "#"}}}, "properties": {"t": {"$ref": "#/$defs/T"}}}
    found = to_components([RoleSchema("a.x", "input", schema), RoleSchema("a.y", "input", schema)])
    for name, one in found.items():
        (own,) = (schema for key, schema in one.components.items() if key != name)
        assert own["items"] == {"$ref": PREFIX + name}


def test_an_action_without_a_result_has_a_plain_monitor() -> None:
    """`-> None`: generators have no class for what is always null; the status has `"result": null` all the same."""
    root = openapi(*typed_specs("nothing"))
    answer = root["paths"]["/typed:nothing"]["post"]["responses"]["202"]["content"]["application/json"]
    assert answer["schema"] == {"$ref": f"{PREFIX}StatusMonitor"}
    assert answer["examples"]["repeated"]["value"]["result"] is None
    assert not [name for name in root["components"]["schemas"] if name.startswith("typed.nothing")]


def test_a_tuple_has_no_boolean_schema() -> None:
    """`items: false` means the same as `maxItems`, and generators refuse the whole document for it."""
    both = openapi(*typed_specs("both"))["components"]["schemas"]["typed.both.input"]
    assert "items" not in both
    assert (both["minItems"], both["maxItems"]) == (2, 2)
    odd = msgspec.structs.replace(spec(), input_schema={"prefixItems": [True, True], "items": False, "maxItems": 1})
    assert openapi(odd)["components"]["schemas"]["book.upload-start.input"]["maxItems"] == 1


def _role(action: str, title: str, role: str = "input", kind: str = "integer") -> RoleSchema:
    definition = {"title": title, "type": kind, "description": f"{title} of {action}"}
    return RoleSchema(action, role, {"$ref": f"#/$defs/{title}", "$defs": {title: definition}})
