"""The input of a submit: JSON, and what the action's schema takes. Called by `submit.py`.

Pure but for the compiled validators that it keeps, one for each action. Never fetches anything that a schema points to.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

import jsonschema_rs
import msgspec

from opstream_api.errors import MESSAGE_LIMIT, TARGET_LIMIT, ApiError
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.errors import ErrorCode
from opstream_schemas.names import Kind
from opstream_schemas.status_monitor import ErrorDetail
from opstream_schemas.text import check_json, truncate_text

logger = logging.getLogger(__name__)

MAX_DETAILS: Final = 10
"""Problems that one answer lists."""

_MASK: Final = "the value"
"""Stands for the offending value in messages: it may be large, or secret."""
_UNION: Final = (jsonschema_rs.ValidationErrorKind.AnyOf, jsonschema_rs.ValidationErrorKind.OneOfNotValid)
_KIND: Final = jsonschema_rs.ValidationErrorKind


def decode_input(body: bytes) -> tuple[bytes, Any]:
    """The input as it will be recorded, and decoded. An empty body is an empty object.

    Raises:
        ApiError: `InvalidInput`: not JSON in UTF-8, nested too deeply, a number out of range.
    """
    document = body.strip(b" \t\r\n") or b"{}"
    try:
        check_json(document)
        return document, msgspec.json.decode(document)
    except UnicodeDecodeError as error:
        raise ApiError(ErrorCode.INVALID_INPUT, "the body is not UTF-8") from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ApiError(ErrorCode.INVALID_INPUT, f"the body is not JSON that can be taken: {error}") from error


class InputValidator:
    """A compiled validator for each action, made again when its catalog entry changes."""

    def __init__(self) -> None:
        self._compiled: dict[Kind, tuple[ActionSpec, jsonschema_rs.Draft202012Validator]] = {}

    def validate(self, spec: ActionSpec, value: Any) -> None:  # noqa: ANN401 - JSON
        """Check an input against the action's schema.

        Raises:
            ApiError: `InvalidInput`, naming the first problem and listing up to `MAX_DETAILS`; `InternalError` for a
                catalog entry whose schema is none.
        """
        validator = self._validator(spec)
        if validator.is_valid(value):
            return
        problems = list(islice(_explain(validator.iter_errors(value)), MAX_DETAILS))
        first = problems[0]
        raise ApiError(
            ErrorCode.INVALID_INPUT,
            f"the input of {spec.kind} is not valid: {first.message}",
            target=first.target,
            details=tuple(problems) if len(problems) > 1 else (),
        )

    def _validator(self, spec: ActionSpec) -> jsonschema_rs.Draft202012Validator:
        known = self._compiled.get(spec.kind)
        if known is not None and known[0] is spec:
            return known[1]
        try:
            validator = jsonschema_rs.Draft202012Validator(
                spec.input_schema, validate_formats=True, mask=_MASK, offline=True
            )
        except ValueError as error:
            logger.exception("the catalog's input schema of %s can't be used", spec.kind)
            raise ApiError(ErrorCode.INTERNAL_ERROR, f"the schema of {spec.kind} can't be used") from error
        self._compiled[spec.kind] = (spec, validator)
        return validator


def _explain(errors: Iterable[jsonschema_rs.ValidationError]) -> Iterator[ErrorDetail]:
    for error in errors:
        kind = error.kind
        if not isinstance(kind, _UNION):
            yield _detail(error.message, _error_path(error))
            continue
        # A union's own error says only that no branch fits. Where the others fail by the value's very type (`null`,
        # mostly), the branch that is left was meant, and its errors help.
        types = [_expected_types(branch, error) for branch in kind.context]
        meant = [branch for branch, other in zip(kind.context, types, strict=True) if not other]
        if len(meant) == 1:
            yield from _explain(meant[0])
        elif meant:
            yield _detail(error.message, _error_path(error))
        else:
            names = dict.fromkeys(name for branch in types for name in branch)
            yield _detail(f"{_MASK} is not of type {' or '.join(names)}", _error_path(error))


def _expected_types(branch: Iterable[jsonschema_rs.ValidationError], union: jsonschema_rs.ValidationError) -> list[str]:
    """The types that a branch wants the union's own value to have, if it is of none of them."""
    found: list[str] = []
    for error in branch:
        if isinstance(error.kind, _KIND.Type) and error.instance_path == union.instance_path:
            found += error.kind.types
    return found


def _error_path(error: jsonschema_rs.ValidationError) -> list[str | int]:
    place = list(error.instance_path)
    if isinstance(error.kind, _KIND.Required):
        place.append(error.kind.property)
    elif isinstance(error.kind, _KIND.AdditionalProperties) and error.kind.unexpected:
        place.append(error.kind.unexpected[0])
    return place


def _detail(message: str, place: Sequence[str | int]) -> ErrorDetail:
    return ErrorDetail(
        code=ErrorCode.INVALID_INPUT,
        message=truncate_text(message, MESSAGE_LIMIT // 2),
        target=truncate_text(format_target(place), TARGET_LIMIT),
    )


def format_target(place: Sequence[str | int]) -> str:
    """A path into the input, written `files[0].hash`; keys that are no names are quoted: `files["a b"]`."""
    parts: list[str] = []
    for step in place:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif step.isidentifier():
            parts.append(f".{step}" if parts else step)
        else:
            parts.append(f"[{json.dumps(step, ensure_ascii=False)}]")
    return "".join(parts)
