"""The AsyncAPI document of a service with the actions of its catalog. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from opstream_api.openapi.action_paths import DocumentedAction
from opstream_api.openapi.schema_components import RoleSchema, SchemaComponents, to_components
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.asyncapi import Json, TypedAction, action_object_name, asyncapi_document, event_schema_names

from .draft7 import is_plain, to_draft7


def action_asyncapi_document(specs: Iterable[ActionSpec]) -> Json:
    """Build the AsyncAPI 3.0 document of the events of these actions."""
    actions = list(specs)
    roles = (
        RoleSchema(f"{spec.resource}.{spec.action}", role, to_draft7(schema))
        for spec in actions
        for role, schema in (("input", spec.input_schema), ("result", spec.result_schema))
    )
    found = to_components(roles, event_schema_names())
    return asyncapi_document(_typed(spec, found) for spec in actions)


def _typed(spec: ActionSpec, found: Mapping[str, SchemaComponents]) -> TypedAction:
    described = DocumentedAction.from_spec(spec)
    taken, returned = (found[action_object_name(spec.kind, role)] for role in ("input", "result"))
    return TypedAction(
        kind=spec.kind,
        version=spec.action_version,
        summary=spec.summary,
        components={**taken.components, **returned.components},
        input_schema=taken.reference,
        result_schema=returned.reference,
        input=_example(described.input),
        result=_example(described.result),
    )


def _example(value: Any) -> Any:  # noqa: ANN401 - JSON
    return value if is_plain(value) else msgspec.UNSET
