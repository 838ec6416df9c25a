"""The result of a handler as JSON: checked against what the action announces, before anything is recorded.

The same handler would return the same again, so a result that can't be recorded ends the operation at once.
"""

from __future__ import annotations

from typing import Any

import msgspec

from opstream_runner.authoring.action import Action
from opstream_runner.containment.json_text import NoJson, check_numbers, encode_json, find_broken_raw, place_text
from opstream_runner.errors import ActionError
from opstream_schemas.errors import ErrorCode
from opstream_schemas.text import TooDeep, check_json


def encode_result(action: Action[Any, Any], result: Any, limit: int) -> bytes:  # noqa: ANN401 - whatever was returned
    """Return the JSON of a result.

    Args:
        action: what it declares is what its clients expect.
        result: what its handler returned.
        limit: the result's maximum, in bytes of JSON.

    Raises:
        ActionError: `InvalidResult`: it is not what the action declares, or has no JSON, and the message says which
            member; `ResultTooLarge`.
    """
    try:
        encoded = encode_json(result)
    except NoJson as error:
        raise _refusal(str(error)) from error
    if len(encoded) > limit:
        message = f"the result has {len(encoded)} bytes of JSON, {limit} are allowed: store it elsewhere, return a URL"
        raise ActionError(ErrorCode.RESULT_TOO_LARGE, message)
    try:
        check_json(encoded)  # msgspec checks neither the encoding nor the nesting of a `msgspec.Raw`
        action.check_result(encoded)
    except UnicodeDecodeError as error:
        raise _refusal(f"has no JSON: {find_broken_raw(result)} is not UTF-8") from error
    except msgspec.ValidationError as error:
        raise _refusal(f"is not what the action declares: {_mismatch(error)}") from error
    except msgspec.DecodeError as error:
        raise _refusal(f"has no JSON: {find_broken_raw(result)} is a msgspec.Raw that holds none: {error}") from error
    except TooDeep as error:
        raise _refusal(f"can't be stored: {error}") from error
    except Exception as error:
        raise _refusal(f"is not what the action declares: its type raises {type(error).__name__}") from error
    try:
        check_numbers(result, encoded)
    except NoJson as error:
        raise _refusal(str(error)) from error
    return encoded


def _refusal(message: str) -> ActionError:
    return ActionError(ErrorCode.INVALID_RESULT, f"the result {message}")


def _mismatch(error: msgspec.ValidationError) -> str:
    message, _, place = str(error).partition(" - at `")
    path = place.removesuffix("`").removeprefix("key` in `").removeprefix("$").removeprefix(".")
    return f"{place_text(path)}: {message}" if path else message
