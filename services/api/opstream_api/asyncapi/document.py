"""The AsyncAPI document of a service with the actions of its catalog. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from opstream_api.openapi.action_paths import DocumentedAction
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.asyncapi import Json, TypedAction, action_object_name, asyncapi_document

from .draft7 import draft7_components, is_plain


def action_asyncapi_document(specs: Iterable[ActionSpec]) -> Json:
    """Build the AsyncAPI 3.0 document of the events of these actions."""
    return asyncapi_document(_typed(spec) for spec in specs)


def _typed(spec: ActionSpec) -> TypedAction:
    described = DocumentedAction.from_spec(spec)
    return TypedAction(
        kind=spec.kind,
        version=spec.action_version,
        summary=spec.summary,
        components={
            **draft7_components(spec.input_schema, action_object_name(spec.kind, "input")),
            **draft7_components(spec.result_schema, action_object_name(spec.kind, "result")),
        },
        input=_example(described.input),
        result=_example(described.result),
    )


def _example(value: Any) -> Any:  # noqa: ANN401 - JSON
    return value if is_plain(value) else msgspec.UNSET
