"""The AsyncAPI document of a service that knows actions. Pure. `main.py` gives it to `documents.Document`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from opstream_api.openapi.action_paths import DocumentedAction
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.asyncapi import Json, TypedAction, action_object_name, asyncapi_document

from .draft7 import draft7_components, is_plain


def action_asyncapi_document(specs: Iterable[ActionSpec]) -> Json:
    """The AsyncAPI 3.0 document with these actions."""
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
        input=_shown(described.input),
        result=_shown(described.result),
    )


def _shown(example: Any) -> Any:  # noqa: ANN401 - JSON
    return example if is_plain(example) else msgspec.UNSET
