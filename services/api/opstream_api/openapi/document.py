"""The whole document. Pure. `main.py` gives it to `documents.Document`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.names import Kind

from . import operation_paths as operations
from . import service_paths as service
from .action_paths import DocumentedAction, action_components, action_paths
from .operation_paths import operation_paths
from .responses import error_components
from .samples import sample_errors
from .service_paths import service_paths
from .shared import HEADERS, PARAMETERS, Json, contract_schemas

API_VERSION: Final = "1"
"""Of the contract: codes, headers and paths only ever get more."""

_DESCRIPTION: Final = (
    "A POST starts an operation that outlives the request: it is answered with `202` once it is recorded for good, and "
    "`Operation-Location` is the URL of the operation's status. Ask for that every `Retry-After` seconds until it is "
    "`Succeeded`, `Failed` or `Canceled`. Whoever sends an `Operation-Id` may repeat the same request as often as need "
    "be, and still gets one operation.\n\n"
    "Every error has the same body and repeats its code in `x-ms-error-code`. A known path answers other methods with "
    "`405` `MethodNotAllowed`, an unknown one with `404` `NotFound`; whatever takes `GET` takes `HEAD`. Codes, members "
    "and headers may be added: ignore those that you do not know."
)
_UNKNOWN: Final = Kind("book", "publish")
"""What the examples are about as long as no action is known."""


def openapi_document(specs: Iterable[ActionSpec], public_url: str = "", *, has_callbacks: bool = False) -> Json:
    """The OpenAPI 3.1 document of a service that offers these actions, and takes callbacks or not."""
    actions = [DocumentedAction.from_spec(spec) for spec in specs]
    paths: Json = {}
    schemas = contract_schemas()
    for action in actions:
        paths |= action_paths(action, public_url, has_callbacks=has_callbacks)
        schemas |= action_components(action.spec)
    paths |= operation_paths(*_example_operation(actions))
    paths |= service_paths()
    document: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "opstream",
            "version": API_VERSION,
            "summary": "Durable long-running operations",
            "description": _DESCRIPTION,
        },
        "tags": _tags(actions),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": error_components(),
            "parameters": PARAMETERS,
            "examples": sample_errors(),
            "headers": HEADERS,
        },
    }
    return document | ({"servers": [{"url": public_url}]} if public_url else {})


def _example_operation(actions: Sequence[DocumentedAction]) -> tuple[Kind, object, object]:
    """What an example of an operation is about: kind, input and result."""
    for action in actions:
        if action.has_examples:
            return action.spec.kind, action.input, action.result
    return _UNKNOWN, {"title": "Moby Dick"}, {"version": 1}


def _tags(actions: Iterable[DocumentedAction]) -> list[Json]:
    described = {action.spec.resource: f"What can be done to a {action.spec.resource}." for action in actions}
    described[operations.TAG] = "The status of what was started, its end, its history."
    described[service.TAG] = "The service itself."
    return [{"name": name, "description": description} for name, description in described.items()]
