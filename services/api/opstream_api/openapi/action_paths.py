"""One action of the catalog: two paths, with an id and without, and components of its own. Pure; see `document.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import jsonschema_rs
import msgspec

from opstream_api.http.callback_header import CALLBACK
from opstream_schemas.action_spec import DAY, ActionSpec, Policy

from .operation_paths import links
from .responses import refused
from .samples import OPERATION_ID, RESOURCE_ID, monitor
from .schema_components import moved
from .schema_examples import example
from .shared import SCHEMAS, Json, content, headers, ref, refs

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
    CALLBACK,
    "traceparent",
    "tracestate",
)
"""What a submit takes; a callback only where the operator allows hosts."""


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """An action, with what the document shows of its input and result."""

    spec: ActionSpec
    input: Any
    """An example, `UNSET` if none could be made."""
    result: Any
    """The same."""

    @classmethod
    def of(cls, spec: ActionSpec) -> Described:
        """Make the examples."""
        return cls(spec=spec, input=example(spec.input_schema), result=example(spec.result_schema))

    @property
    def has_examples(self) -> bool:
        """Whether both could be made."""
        return self.input is not msgspec.UNSET and self.result is not msgspec.UNSET


def action_paths(action: Described, public_url: str, *, is_calling_back: bool) -> Json:
    """The two paths of an action."""
    spec = action.spec
    taken = [name for name in _HEADERS if name != CALLBACK or is_calling_back]
    return {
        f"/{spec.resource}/{{id}}:{spec.action}": {"post": _submit(action, public_url, taken, has_id=True)},
        f"/{spec.resource}:{spec.action}": {"post": _submit(action, public_url, taken, has_id=False)},
    }


def action_components(spec: ActionSpec) -> Json:
    """The schemas of an action under names that no other action has, and the monitor that its result appears in."""
    result = {"properties": {"result": {"$ref": SCHEMAS + _name(spec, "result")}}}
    return {
        **moved(spec.input_schema, _name(spec, "input")),
        **moved(spec.result_schema, _name(spec, "result")),
        _name(spec, "monitor"): {"allOf": [{"$ref": SCHEMAS + "StatusMonitor"}, result]},
    }


def _submit(action: Described, public_url: str, headers_taken: Sequence[str], *, has_id: bool) -> Json:
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
            "required": not _takes_nothing(spec),
            "content": content({"$ref": SCHEMAS + _name(spec, "input")}, given),
        },
        "responses": {"202": _accepted(action, public_url, has_id=has_id), **_refusals(spec)},
        **_LONG_RUNNING,
    }


def _accepted(action: Described, public_url: str, *, has_id: bool) -> Json:
    spec = action.spec
    resource_id = RESOURCE_ID if has_id else ""
    shown = {"new": monitor("notStarted", spec.kind, resource_id=resource_id)}
    if action.result is not msgspec.UNSET:
        repeated = monitor("succeeded", spec.kind, resource_id=resource_id, result=action.result)
        shown["repeated"] = {**repeated, "summary": "The request was sent before, and its operation has ended"}
    location = f"{public_url or 'http://127.0.0.1:8080'}/status/{OPERATION_ID}"
    return {
        "description": "Recorded for good, to be run by a runner. The body is the status monitor",
        "headers": {
            **headers("Operation-Location", "Operation-Id", "Retry-After", "Repeatability-Result"),
            "Operation-Location": {**ref("headers", "Operation-Location"), "description": f"E.g. `{location}`"},
        },
        "content": content({"$ref": SCHEMAS + _name(spec, "monitor")}, shown),
        "links": links(),
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
    days = seconds / DAY
    return f"{days:g} day{'' if days == 1 else 's'}"


def _takes_nothing(spec: ActionSpec) -> bool:
    """Whether a request may do without a body, which is then taken for `{}`."""
    try:
        return jsonschema_rs.Draft202012Validator(spec.input_schema, offline=True).is_valid({})
    except ValueError:
        return False


def _name(spec: ActionSpec, role: str) -> str:
    # A '.' is in no resource or action, so names can't collide.
    return f"{spec.resource}.{spec.action}.{role}"


def _refusals(spec: ActionSpec) -> Json:
    is_rejecting = spec.scope and spec.policy.on_conflict == "reject"
    return _REFUSALS_IF_BUSY if is_rejecting else _REFUSALS


_SUBMITS: Final = ("InvalidSubmit", "UnknownAction", "TooLargeSubmit", "UnsupportedSubmit", "Unavailable")
_REFUSALS: Final = refused(*_SUBMITS)
_REFUSALS_IF_BUSY: Final = refused(*_SUBMITS, "ResourceBusy")
