"""One action of the catalog: two paths, with an id and without, and components of its own. Pure; see `document.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import jsonschema_rs
import msgspec

from opstream_api.http.callback_header import CALLBACK_HEADER
from opstream_schemas.action_spec import DAY_SECONDS, ActionSpec, Policy

from .operation_paths import monitor_links
from .responses import error_responses
from .samples import OPERATION_ID, RESOURCE_ID, sample_monitor
from .schema_components import to_components
from .schema_examples import make_example
from .shared import SCHEMAS, Json, header_refs, json_content, ref, refs

_HOUR: Final = 3600.0
_LONG_RUNNING: Final[Mapping[str, Any]] = {
    "x-ms-long-running-operation": True,
    "x-ms-long-running-operation-options": {"final-state-via": "operation-location"},
}
"""What Azure's tools read (their OpenAPI extensions): a client that they generate polls by itself."""
_HEADERS: Final = (
    "Operation-Id",
    "Repeatability-Request-ID",
    "Repeatability-First-Sent",
    CALLBACK_HEADER,
    "traceparent",
    "tracestate",
)
"""What a submit takes; a callback only where the operator allows hosts."""


class DocumentedAction(msgspec.Struct, frozen=True, kw_only=True):
    """An action, with what the document shows of its input and result."""

    spec: ActionSpec
    input: Any
    """An example, `UNSET` if none could be made."""
    result: Any
    """The same."""

    @classmethod
    def from_spec(cls, spec: ActionSpec) -> DocumentedAction:
        """Make the examples."""
        return cls(spec=spec, input=make_example(spec.input_schema), result=make_example(spec.result_schema))

    @property
    def has_examples(self) -> bool:
        """Whether both could be made."""
        return self.input is not msgspec.UNSET and self.result is not msgspec.UNSET


def action_paths(action: DocumentedAction, public_url: str, *, has_callbacks: bool) -> Json:
    """The two paths of an action."""
    spec = action.spec
    taken = [name for name in _HEADERS if name != CALLBACK_HEADER or has_callbacks]
    return {
        f"/{spec.resource}/{{id}}:{spec.action}": {"post": _submit(action, public_url, taken, has_id=True)},
        f"/{spec.resource}:{spec.action}": {"post": _submit(action, public_url, taken, has_id=False)},
    }


def action_components(spec: ActionSpec) -> Json:
    """The schemas of an action under names that no other action has, and the monitor that its result appears in."""
    result = {"properties": {"result": {"$ref": SCHEMAS + _name(spec, "result")}}}
    return {
        **to_components(spec.input_schema, _name(spec, "input")),
        **to_components(spec.result_schema, _name(spec, "result")),
        _name(spec, "monitor"): {"allOf": [{"$ref": SCHEMAS + "StatusMonitor"}, result]},
    }


def _submit(action: DocumentedAction, public_url: str, headers_taken: Sequence[str], *, has_id: bool) -> Json:
    spec = action.spec
    path = ["ResourceId"] if has_id else []
    given = {} if action.input is msgspec.UNSET else {"example": {"value": action.input}}
    return {
        "operationId": f"{spec.resource}.{spec.action}" + ("" if has_id else ".collection"),
        "summary": spec.summary or str(spec.kind),
        "description": _description(spec, has_id=has_id),
        "tags": [spec.resource],
        "parameters": refs("parameters", *path, *headers_taken, "api-version", "x-ms-client-request-id"),
        "requestBody": {
            "required": not _is_body_optional(spec),
            "content": json_content({"$ref": SCHEMAS + _name(spec, "input")}, given),
        },
        "responses": {"202": _accepted(action, public_url, has_id=has_id), **_submit_errors(spec)},
        **_LONG_RUNNING,
    }


def _accepted(action: DocumentedAction, public_url: str, *, has_id: bool) -> Json:
    spec = action.spec
    resource_id = RESOURCE_ID if has_id else ""
    shown = {"new": sample_monitor("notStarted", spec.kind, resource_id=resource_id)}
    if action.result is not msgspec.UNSET:
        repeated = sample_monitor("succeeded", spec.kind, resource_id=resource_id, result=action.result)
        shown["repeated"] = {**repeated, "summary": "The request was sent before, and its operation has ended"}
    location = f"{public_url or 'http://127.0.0.1:8080'}/status/{OPERATION_ID}"
    return {
        "description": "Recorded for good, to be run by a runner. The body is the status monitor",
        "headers": {
            **header_refs("Operation-Location", "Operation-Id", "Retry-After", "Repeatability-Result"),
            "Operation-Location": {**ref("headers", "Operation-Location"), "description": f"E.g. `{location}`"},
        },
        "content": json_content({"$ref": SCHEMAS + _name(spec, "monitor")}, shown),
        "links": monitor_links(),
    }


def _description(spec: ActionSpec, *, has_id: bool) -> str:
    policy = spec.policy
    which = "" if has_id else f" For a {spec.resource} that has no id yet, or an action that needs none."
    return (
        f"Starts the operation `{spec.kind}` (version {spec.action_version}) and answers at once.{which} Ask for its "
        f"status about every {policy.retry_after} s. An attempt that is lost with its runner is made again, "
        f"{policy.max_attempts} in all, and none begins later than {policy.deadline / _HOUR:g} hours after the "
        f"request. The status stays readable for {_kept(policy)}."
    )


def _kept(policy: Policy) -> str:
    others = {
        "if it failed": policy.retention_failed or policy.retention,
        "if it was canceled": policy.retention_canceled or policy.retention,
    }
    differing = [f", {_days(seconds)} {when}" for when, seconds in others.items() if seconds != policy.retention]
    return f"{_days(policy.retention)} after the end{''.join(differing)}"


def _days(seconds: float) -> str:
    days = seconds / DAY_SECONDS
    return f"{days:g} day{'' if days == 1 else 's'}"


def _is_body_optional(spec: ActionSpec) -> bool:
    """Whether a request may do without a body, which is then taken for `{}`."""
    try:
        return jsonschema_rs.Draft202012Validator(spec.input_schema, offline=True).is_valid({})
    except ValueError:
        return False


def _name(spec: ActionSpec, role: str) -> str:
    # A '.' is in no resource or action, so names can't collide.
    return f"{spec.resource}.{spec.action}.{role}"


def _submit_errors(spec: ActionSpec) -> Json:
    is_rejecting = spec.lock_scope and spec.policy.on_conflict == "reject"
    return _SUBMIT_ERRORS_IF_BUSY if is_rejecting else _SUBMIT_ERRORS


_SUBMITS: Final = ("InvalidSubmit", "UnknownAction", "TooLargeSubmit", "UnsupportedSubmit", "Unavailable")
_SUBMIT_ERRORS: Final = error_responses(*_SUBMITS)
_SUBMIT_ERRORS_IF_BUSY: Final = error_responses(*_SUBMITS, "ResourceBusy")
