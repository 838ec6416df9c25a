"""The input of a submit: decoded from JSON and validated against the action's schema.

Pure, except that it keeps one compiled validator for each action. It never fetches what a schema refers to.
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
"""Problems that one error lists."""

_MASK: Final = "the value"
"""Replaces the invalid value in messages, since it may be large or secret."""
_UNION: Final = (jsonschema_rs.ValidationErrorKind.AnyOf, jsonschema_rs.ValidationErrorKind.OneOfNotValid)
_KIND: Final = jsonschema_rs.ValidationErrorKind


def decode_input(body: bytes) -> tuple[bytes, Any]:
    """Return the input as JSON, to be stored, and decoded. An empty body counts as `{}`.

    Raises:
        ApiError: `InvalidInput`: not JSON in UTF-8, nested too deeply, or a number out of range.
    """
    document = body.strip(b" \t\r\n") or b"{}"
    try:
        check_json(document)
        return document, msgspec.json.decode(document)
    except UnicodeDecodeError as error:
        raise ApiError(ErrorCode.INVALID_INPUT, "the body is not UTF-8") from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ApiError(ErrorCode.INVALID_INPUT, f"the body can't be read as JSON: {error}") from error


class InputValidator:
    """Validates inputs. It keeps a compiled validator for each action until the catalog entry changes."""

    def __init__(self) -> None:
        self._compiled: dict[Kind, tuple[ActionSpec, jsonschema_rs.Draft202012Validator]] = {}

    def validate(self, spec: ActionSpec, value: Any) -> None:  # noqa: ANN401 - JSON
        """Validate an input against the action's schema.

        Raises:
            ApiError: `InvalidInput`: it names the first problem and lists up to `MAX_DETAILS`; `InternalError`: the
                catalog entry has no valid schema.
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
        # The error of a union says only that no branch matches. If all branches but one fail by the type of the value
        # (mostly `null`), the client meant that one, and its errors are useful.
        types = [_expected_types(branch, error) for branch in kind.context]
        meant = [branch for branch, expected in zip(kind.context, types, strict=True) if not expected]
        if len(meant) == 1:
            yield from _explain(meant[0])
        elif meant:
            yield _detail(error.message, _error_path(error))
        else:
            names = dict.fromkeys(name for branch in types for name in branch)
            yield _detail(f"{_MASK} is not of type {' or '.join(names)}", _error_path(error))


def _expected_types(branch: Iterable[jsonschema_rs.ValidationError], union: jsonschema_rs.ValidationError) -> list[str]:
    """Return the types that a branch requires of the union's value, if the value has none of them."""
    found: list[str] = []
    for error in branch:
        if isinstance(error.kind, _KIND.Type) and error.instance_path == union.instance_path:
            found += error.kind.types
    return found


def _error_path(error: jsonschema_rs.ValidationError) -> list[str | int]:
    path = list(error.instance_path)
    if isinstance(error.kind, _KIND.Required):
        path.append(error.kind.property)
    elif isinstance(error.kind, _KIND.AdditionalProperties) and error.kind.unexpected:
        path.append(error.kind.unexpected[0])
    return path


def _detail(message: str, path: Sequence[str | int]) -> ErrorDetail:
    return ErrorDetail(
        code=ErrorCode.INVALID_INPUT,
        message=truncate_text(message, MESSAGE_LIMIT // 2),
        target=truncate_text(format_target(path), TARGET_LIMIT),
    )


def format_target(path: Sequence[str | int]) -> str:
    """Format a path into the input: `files[0].hash`; a key that is no identifier is quoted: `files["a b"]`."""
    parts: list[str] = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif step.isidentifier():
            parts.append(f".{step}" if parts else step)
        else:
            parts.append(f"[{json.dumps(step, ensure_ascii=False)}]")
    return "".join(parts)
