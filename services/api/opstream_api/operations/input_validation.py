"""The input of a submit: decoded from JSON and validated against the action's schema.

Pure, except that it keeps one compiled validator for each action. It never fetches what a schema refers to.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from opstream_api.errors import ApiError
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.errors import ErrorCode
from opstream_schemas.names import Kind
from opstream_schemas.text import check_json

from .input_problems import InputProblems, compile_schema

logger = logging.getLogger(__name__)


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
        self._compiled: dict[Kind, _CompiledAction] = {}

    def validate(self, spec: ActionSpec, value: Any) -> None:  # noqa: ANN401 - JSON
        """Validate an input against the action's schema.

        Raises:
            ApiError: `InvalidInput`: it names the first problem, and lists several if they are found in bounded time;
                `InternalError`: the catalog entry has no valid schema.
        """
        compiled = self._compile(spec)
        if compiled.validator.is_valid(value):
            return
        problems = compiled.problems().find(value)
        first = problems[0]
        raise ApiError(
            ErrorCode.INVALID_INPUT,
            f"the input of {spec.kind} is not valid: {first.message}",
            target=first.target,
            details=tuple(problems) if len(problems) > 1 else (),
        )

    def _compile(self, spec: ActionSpec) -> _CompiledAction:
        known = self._compiled.get(spec.kind)
        if known is not None and known.spec is spec:
            return known
        try:
            compiled = self._compiled[spec.kind] = _CompiledAction(spec)
        except ValueError as error:
            logger.exception("the catalog's input schema of %s can't be used", spec.kind)
            raise ApiError(ErrorCode.INTERNAL_ERROR, f"the schema of {spec.kind} can't be used") from error
        return compiled


class _CompiledAction:
    def __init__(self, spec: ActionSpec) -> None:
        self.spec = spec
        self.validator = compile_schema(spec.input_schema)
        self._problems: InputProblems | None = None

    def problems(self) -> InputProblems:
        """Return what finds the problems of this action's inputs. The first refused input compiles it."""
        if self._problems is None:
            self._problems = InputProblems(self.spec.input_schema)
        return self._problems
