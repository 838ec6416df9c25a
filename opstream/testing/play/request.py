"""The request of a run: its input is checked as the API does, and it becomes the first event of the operation."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec

from opstream.testing.errors import RunRefused
from opstream.testing.virtual_time import VirtualClock
from opstream_runner import Action
from opstream_schemas.events import Requested
from opstream_schemas.status_monitor import request_hash


def encoded_input(action: Action[Any, Any], given: object) -> bytes:
    """Return an input as the JSON that is recorded.

    Args:
        action: takes it.
        given: JSON as bytes, or what msgspec can encode: an instance of the action's input type, a dict.

    Raises:
        RunRefused: the API would refuse it.
    """
    from opstream_api.errors import ApiError
    from opstream_api.inputs.input_validation import InputValidator, decode_input

    try:
        document = given if isinstance(given, bytes) else msgspec.json.encode(given)
    except TypeError as error:
        raise RunRefused(
            f"the input of {action.kind} has no JSON ({error}): give a dict, JSON as bytes, or an instance of the "
            "action's input type"
        ) from error
    try:
        document, _ = InputValidator().validate(action.spec, *decode_input(document))
    except ApiError as error:
        raise RunRefused(f"the API would refuse this request: {error}") from error
    return document


def requested(
    action: Action[Any, Any],
    action_input: bytes,
    *,
    operation_id: str,
    resource_id: str,
    caller: str,
    clock: VirtualClock,
) -> Requested:
    """Return the first event's data. The resource is not locked: there is no other operation."""
    spec, policy = action.spec, action.spec.policy
    value = msgspec.json.decode(action_input)
    return Requested(
        resource=spec.resource,
        resource_id=resource_id,
        action=spec.action,
        action_version=spec.action_version,
        input=msgspec.Raw(action_input),
        request_hash=request_hash(spec.kind, resource_id, value, caller),
        deadline=clock.now() + timedelta(seconds=policy.deadline),
        retention=policy.retention,
        retention_failed=policy.retention_failed,
        retention_canceled=policy.retention_canceled,
        caller=caller,
        own_id=operation_id if caller else "",  # as the API has it that knows its callers
    )
