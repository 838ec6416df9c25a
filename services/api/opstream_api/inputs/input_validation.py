"""The input of a submit: decoded from JSON and validated against the action's schema.

Pure, except that it keeps one compiled validator for each action. It never fetches what a schema refers to.
"""

from __future__ import annotations

import json
import logging
import re
from decimal import Decimal
from itertools import islice
from typing import Any, Final

import msgspec

from opstream_api.errors import ApiError
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.action_types.repeated_members import find_repeated_name
from opstream_schemas.action_types.schema_engine import compile_schema, validated_part, with_known_patterns
from opstream_schemas.action_types.text_rules import find_text_rules
from opstream_schemas.action_types.type_decoder import schema_decoder
from opstream_schemas.errors import ErrorCode
from opstream_schemas.names import Kind
from opstream_schemas.status_monitor import ErrorDetail
from opstream_schemas.text import check_json, check_numbers

from .input_problems import InputProblems, decoding_problem
from .unreadable_json import find_unreadable

logger = logging.getLogger(__name__)

_LARGEST_WHOLE: Final = 2**53
"""Up to this, a double has each integer. It also bounds how much longer an input gets."""
MAX_LONG_IN_SETS: Final = 300
"""Whole numbers of 20 digits or more that an input may have if its schema has sets.

jsonschema-rs compares each of them with each other one: 8,000 in one set took 25 s.
"""
_ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
_QUOTE: Final = ord('"')
_LONG_NUMBER: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[0-9]{20,}+', re.DOTALL)


def decode_input(body: bytes) -> tuple[bytes, Any]:
    """Return the input as JSON, to be stored, and decoded. An empty body counts as `{}`.

    Raises:
        ApiError: `InvalidInput`: not JSON in UTF-8, nested too deeply, a number out of range, too many near the ends of
            that range, or a repeated member.
    """
    document = body.strip(b" \t\r\n") or b"{}"
    try:
        check_json(document)
        check_numbers(document)
        value = msgspec.json.decode(document)
    except UnicodeDecodeError as error:
        raise ApiError(ErrorCode.INVALID_INPUT, "the body is not UTF-8") from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        reason, target = find_unreadable(document) if isinstance(error, msgspec.DecodeError) else ("", "")
        message = f"the body can't be read as JSON: {reason or error}"
        raise ApiError(ErrorCode.INVALID_INPUT, message, target=target) from error
    name = find_repeated_name(document, value)
    if name is not None:
        raise ApiError(
            ErrorCode.INVALID_INPUT,
            f"an object of the body has the member {json.dumps(name, ensure_ascii=False)} twice: readers of JSON "
            "disagree which one counts, so send one",
            target=name,
        )
    return document, value


class InputValidator:
    """Validates inputs. It keeps a compiled validator for each action until the catalog entry changes."""

    def __init__(self) -> None:
        self._compiled: dict[Kind, tuple[ActionSpec, CompiledSchema]] = {}

    def validate(self, spec: ActionSpec, document: bytes, value: Any) -> tuple[bytes, Any]:  # noqa: ANN401 - JSON
        """Validate an input, as `CompiledSchema.validate` does.

        Args:
            spec: the action.
            document: the input, JSON.
            value: the same, decoded.

        Returns:
            The input to record, and the same decoded.

        Raises:
            ApiError: as `CompiledSchema.validate`; `InternalError`: the catalog entry has no valid schema.
        """
        return self._compile(spec).validate(document, value, f"the input of {spec.kind}")

    def _compile(self, spec: ActionSpec) -> CompiledSchema:
        known = self._compiled.get(spec.kind)
        if known is not None and known[0] is spec:
            return known[1]
        compiled = compile_or_fail(spec.input_schema, str(spec.kind))
        self._compiled[spec.kind] = (spec, compiled)
        return compiled


class CompiledSchema:
    """A JSON Schema that documents are validated by.

    Args:
        schema: as `opstream` announces types, every object closed.

    Raises:
        ValueError: it is no schema.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self.has_sets = b'"uniqueItems":true' in msgspec.json.encode(schema)
        self._decode = schema_decoder(schema)
        self._rules = find_text_rules(schema, with_patterns=False)
        self._schema = schema if self._decode is None else validated_part(schema)
        try:
            self._validator = compile_schema(self._schema)
        except ValueError:
            self._schema = with_known_patterns(self._schema)
            self._validator = compile_schema(self._schema)
        self._problems: InputProblems | None = None

    def validate(self, document: bytes, value: Any, what: str) -> tuple[bytes, Any]:  # noqa: ANN401 - JSON
        """Validate a document: it has to fit the schema, and to decode as the runner will decode it.

        To JSON Schema `1.0` and `1e2` are integers, to a decoder they are not. A document that is refused for that
        alone is recorded with such numbers written as integers: the same JSON value.

        Args:
            document: JSON.
            value: the same, decoded.
            what: names it in messages.

        Returns:
            The document to record, and the same decoded.

        Raises:
            ApiError: `InvalidInput`: it names the first problem, and lists several if they are found in bounded time.
        """
        if self.has_sets and _has_many_long_numbers(document):
            raise ApiError(
                ErrorCode.INVALID_INPUT,
                f"{what} has sets, so it may have at most {MAX_LONG_IN_SETS} whole numbers of 20 digits or more: send "
                "fewer, or make them texts",
            )
        problems = self._find_problems(document, value)
        if not problems:
            return document, value
        if self._validator.is_valid(value):
            whole = json.loads(document, parse_float=_whole_number)
            spelled = msgspec.json.encode(whole)
            if not self._find_problems(spelled, whole):
                return spelled, whole
        first = problems[0]
        raise ApiError(
            ErrorCode.INVALID_INPUT,
            f"{what} is not valid: {first.message}",
            target=first.target,
            details=tuple(problems) if len(problems) > 1 else (),
        )

    def _find_problems(self, document: bytes, value: Any) -> list[ErrorDetail]:  # noqa: ANN401 - JSON
        """Return what is wrong with a document; nothing if it is valid."""
        if not self._validator.is_valid(value):
            if self._problems is None:  # the first refused document compiles it
                self._problems = InputProblems(self._schema)
            return self._problems.find(value)
        if self._decode is not None:
            try:
                self._decode(document)
                if self._rules is not None:
                    self._rules.check(value)
            except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
                return [decoding_problem(error)]
        return []


def compile_or_fail(schema: dict[str, Any], what: str) -> CompiledSchema:
    """Return a compiled schema.

    Raises:
        ApiError: `InternalError`: it is no schema. The log has the cause.
    """
    try:
        return CompiledSchema(schema)
    except ValueError as error:
        logger.exception("the schema of %s can't be used", what)
        raise ApiError(ErrorCode.INTERNAL_ERROR, f"the schema of {what} can't be used") from error


def _has_many_long_numbers(document: bytes) -> bool:
    if document.translate(_ZEROS).count(b"0" * 20) <= MAX_LONG_IN_SETS:
        return False
    found = (match for match in _LONG_NUMBER.finditer(document) if match[0][0] != _QUOTE)
    return next(islice(found, MAX_LONG_IN_SETS, None), None) is not None


def _whole_number(text: str) -> int | float:
    """Return a JSON number with a point or an exponent as an integer, if its text is one; else as a float.

    The float alone can't tell: that of `9007199254740992.7` has no fraction. Beyond `_LARGEST_WHOLE` it stays a float.
    """
    number = float(text)
    if not number.is_integer() or abs(number) > _LARGEST_WHOLE:
        return number
    whole = int(number)
    if whole == 0:  # its exponent may be more than a Decimal takes
        is_exact = not any(digit in "123456789" for digit in text.lower().partition("e")[0])
    else:
        is_exact = Decimal(text) == whole
    return whole if is_exact else number
