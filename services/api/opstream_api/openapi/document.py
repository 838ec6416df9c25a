"""The OpenAPI document of the service. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from opstream_journal.provisioning.topology import BODY_LIMIT
from opstream_payloads.documents import UPLOAD_LIMIT
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.names import Kind

from . import operation_paths as operations
from . import schedule_paths as schedules
from . import service_paths as service
from .action_paths import DocumentedAction, action_paths, schemas_of
from .administration import undelivered_paths as undelivered
from .administration.control_paths import CONTROL_PARAMETERS, CONTROL_SCHEMAS, CONTROL_TAG, control_paths
from .administration.erase_path import ERASE_PARAMETERS
from .administration.undelivered_paths import UNDELIVERED_PARAMETERS, UNDELIVERED_SCHEMAS, undelivered_paths
from .contract.contract_schemas import contract_schemas
from .list_path import add_lists
from .operation_paths import operation_paths
from .responses import access_components, access_responses, error_components
from .samples import sample_access_errors, sample_errors
from .schedule_paths import SCHEDULE_PARAMETERS, SCHEDULE_SCHEMAS, schedule_paths
from .service_paths import service_paths
from .shared import ACCESS_HEADERS, ACCESS_PARAMETERS, HEADERS, PARAMETERS, Json, header_refs, refs

API_VERSION: Final = "1"
"""Version of the contract. Codes, headers and paths are only ever added."""

_DESCRIPTION: Final = (
    "A POST starts an operation that outlives the request. The response is `202` once the operation is stored durably, "
    "and `Operation-Location` is the URL of its status. Poll that every `Retry-After` seconds until the status is "
    "`Succeeded`, `Failed` or `Canceled`. A client that sends an `Operation-Id` may repeat the same request "
    "as often as necessary and gets one operation.\n\n"
    "Every error has the same body and repeats its code in `x-ms-error-code`. A known path responds `405` "
    "`MethodNotAllowed` to other methods, an unknown one `404` `NotFound`. A path with `GET` also has `HEAD`. Codes, "
    "members and headers may be added: ignore unknown ones."
)
_SCHEME: Final = "bearer"
_STATUS_TOKEN: Final = "statusToken"  # noqa: S105 - a name
_UPLOAD_TOKEN: Final = "uploadToken"  # noqa: S105 - a name
_SIGNAL_TOKEN: Final = "signalToken"  # noqa: S105 - a name
_WITHOUT_STATUS_TOKEN: Final = frozenset({operations.TAG, schedules.TAG})
"""Tags of the paths that accept an operation, and give no status token for it."""
_UNKNOWN: Final = Kind("book", "publish")
"""The action of the examples while no action is known."""


def openapi_document(
    specs: Iterable[ActionSpec],
    public_url: str = "",
    *,
    has_callbacks: bool = False,
    has_access: bool = False,
    has_index: bool = False,
    body_limit: int = BODY_LIMIT,
    upload_limit: int = UPLOAD_LIMIT,
) -> Json:
    """Build the OpenAPI 3.1 document.

    Args:
        specs: the actions of the service.
        public_url: base URL of the service; empty if unknown.
        has_callbacks: True if submits may name a callback URL.
        has_access: True if the service asks for credentials.
        has_index: True if it lists operations.
        body_limit: bytes of a submit's body.
        upload_limit: bytes of a file that a client uploads.
    """
    actions = [DocumentedAction.from_spec(spec) for spec in specs]
    paths: Json = {}
    schemas = contract_schemas()
    own_schemas = SCHEDULE_SCHEMAS | CONTROL_SCHEMAS | UNDELIVERED_SCHEMAS
    of_actions = schemas_of((action.spec for action in actions), (schemas | own_schemas).keys())
    for action in actions:
        own = of_actions[action.spec.kind]
        paths |= action_paths(action, own, public_url, has_callbacks=has_callbacks, body_limit=body_limit)
        schemas |= own.components
    paths |= operation_paths(*_example_operation(actions), upload_limit)
    paths |= schedule_paths()
    paths |= control_paths({action.spec.kind for action in actions})
    paths |= undelivered_paths()
    paths |= service_paths()
    schemas |= own_schemas
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
            "parameters": {
                **PARAMETERS,
                **SCHEDULE_PARAMETERS,
                **CONTROL_PARAMETERS,
                **UNDELIVERED_PARAMETERS,
                **operations.SIGNAL_PARAMETERS,
                **ERASE_PARAMETERS,
            },
            "examples": sample_errors(),
            "headers": {**HEADERS, **operations.SIGNAL_HEADERS},
        },
    }
    if has_index:
        add_lists(document, has_access=has_access)
    if has_access:
        _add_access(document)
    return document | ({"servers": [{"url": public_url}]} if public_url else {})


def _add_access(document: Json) -> None:
    """Add the credentials that each request needs, and the errors of those without."""
    components = document["components"]
    components["securitySchemes"] = {
        _SCHEME: {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key that the service's operator gave out, or a token of its identity provider.",
        },
        _STATUS_TOKEN: {
            "type": "apiKey",
            "in": "query",
            "name": "token",
            "description": "As `Operation-Location` has it after a submit with `Prefer: status-token`.",
        },
        _SIGNAL_TOKEN: {
            "type": "apiKey",
            "in": "query",
            "name": "token",
            "description": "As `blockedBy.signal.url` of a status has it.",
        },
        _UPLOAD_TOKEN: {
            "type": "apiKey",
            "in": "query",
            "name": "token",
            "description": "As `href` of a place for a file has it.",
        },
    }
    components["parameters"] = {**components["parameters"], **ACCESS_PARAMETERS}
    components["responses"] |= access_components()
    components["examples"] |= sample_access_errors()
    components["headers"] = {**components["headers"], **ACCESS_HEADERS}
    document["security"] = [{_SCHEME: []}]
    for methods in document["paths"].values():
        for method, operation in methods.items():
            if operation["operationId"] in service.PROBES:
                operation["security"] = []
                continue
            if operation["operationId"] == operations.STATUS:
                operation["security"] = [{_SCHEME: []}, {_STATUS_TOKEN: []}]
            if "202" in operation["responses"] and not _WITHOUT_STATUS_TOKEN & {*operation["tags"]}:
                _add_status_token(operation)
            is_of_service = service.TAG in operation["tags"]
            is_signal = operation["operationId"] == operations.SIGNAL
            if is_signal:
                operation["security"] = [{_SCHEME: []}, {_SIGNAL_TOKEN: []}]
            is_post = method == "post" or operation["operationId"] == operations.UPLOAD
            if operation["operationId"] == operations.UPLOAD:
                operation["security"] = [{_SCHEME: []}, {_UPLOAD_TOKEN: []}]
            added = access_responses(is_post=is_post, is_signal=is_signal, needs_scope=not is_of_service)
            operation["responses"] = dict(sorted({**operation["responses"], **added}.items()))


def _add_status_token(submit: Json) -> None:
    """Add to a submit that it may ask for a status token."""
    submit["parameters"] = [*submit["parameters"], *refs("parameters", *ACCESS_PARAMETERS)]
    accepted = submit["responses"]["202"]
    headers = {**accepted["headers"], **header_refs("Preference-Applied")}
    submit["responses"] = {**submit["responses"], "202": {**accepted, "headers": headers}}


def _example_operation(actions: Sequence[DocumentedAction]) -> tuple[Kind, object, object]:
    """Return kind, input and result of the operation in the examples."""
    for action in actions:
        if action.has_examples:
            return action.spec.kind, action.input, action.result
    return _UNKNOWN, {"title": "Moby Dick"}, {"version": 1}


def _tags(actions: Iterable[DocumentedAction]) -> list[Json]:
    described = {action.spec.resource: f"The actions of the resource `{action.spec.resource}`." for action in actions}
    described[operations.TAG] = (
        "The status of an operation, its cancelation, its retry, its history, and signals to it."
    )
    described[schedules.TAG] = "What begins again and again."
    described[CONTROL_TAG] = "The actions, and what operators do to them."
    described[undelivered.TAG] = "What receivers of webhooks and subscribers did not take."
    described[service.TAG] = "The service itself."
    return [{"name": name, "description": description} for name, description in described.items()]
