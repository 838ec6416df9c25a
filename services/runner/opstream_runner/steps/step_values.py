"""The JSON of a step's arguments and result, and the type that its function says it returns."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import inspect
import os
import typing
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

import msgspec

from opstream_runner.containment.json_text import NoJson, as_base, check_numbers, encode_json
from opstream_schemas.text import TooDeep, check_json

from .step_errors import InvalidStep, StepResultTooLarge

_AWAITABLES: Final = (Awaitable, Coroutine, asyncio.Future, asyncio.Task)
_return_types: Final[weakref.WeakKeyDictionary[Any, Any]] = weakref.WeakKeyDictionary()
"""By function. To resolve annotations each time is a quarter of what a handler of three steps costs."""


def input_hash(step: str, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of the JSON of a step's arguments: the same for equal ones, in any process.

    Raises:
        InvalidStep: an argument has no JSON.
    """
    try:
        encoded = msgspec.json.encode([arguments, keywords], enc_hook=_argument_base, order="deterministic")
    except Exception as error:
        raise InvalidStep(f"step {step!r}: {_bad_argument(arguments, keywords)}") from error
    return hashlib.sha256(encoded).hexdigest()


def replaced_input_hash(input_hash: str, result: bytes) -> str:
    """Return the hash of a step that replaces a recorded result that can't be read any more."""
    return hashlib.sha256(input_hash.encode() + result).hexdigest()


def encode_step_result(step: str, result: Any, limit: int) -> bytes:  # noqa: ANN401 - whatever was returned
    """Return the JSON of what a step's function returned.

    Raises:
        InvalidStep: it has none.
        StepResultTooLarge: it has more bytes than `limit`.
    """
    try:
        encoded = encode_json(result)
        check_json(encoded)
        check_numbers(result, encoded)
    except (NoJson, TooDeep, UnicodeDecodeError) as error:
        raise InvalidStep(f"the result of step {step!r} {error}") from error
    if len(encoded) > limit:
        raise StepResultTooLarge(
            f"the result of step {step!r} has {len(encoded)} bytes of JSON, {limit} are allowed: store it elsewhere in "
            "the step, and return where it is"
        )
    return encoded


def decode_step_result(encoded: bytes, type_: Any) -> Any:  # noqa: ANN401 - the type that the function declares
    """Return a recorded result as what the function says it returns.

    Raises:
        msgspec.ValidationError: it is not of that type.
        Exception: what the type's own code raises, or that msgspec does not know the type.
    """
    return msgspec.json.decode(encoded, type=type_)


def return_type(step: str, function: Callable[..., Any]) -> Any:  # noqa: ANN401 - any type
    """Return the type that a function says it returns, of an async one what it returns when awaited; `Any` for none.

    Raises:
        InvalidStep: its annotation names something that is not there.
    """
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    if not inspect.isroutine(inner) and not inspect.isclass(inner):
        inner = type(inner).__call__
    if inspect.isclass(inner):
        return inner
    inner = getattr(inner, "__func__", inner)  # a bound method is another object each time
    with contextlib.suppress(KeyError, TypeError):  # not there, or no weak reference to it
        return _return_types[inner]
    found = _resolved_return_type(step, inner)
    with contextlib.suppress(TypeError):
        _return_types[inner] = found
    return found


def _resolved_return_type(step: str, inner: Callable[..., Any]) -> Any:  # noqa: ANN401
    try:
        found = typing.get_type_hints(inner, include_extras=True).get("return", Any)
    except Exception as error:
        raise InvalidStep(
            f"step {step!r}: the annotations of {getattr(inner, '__qualname__', inner)} can't be resolved: {error}"
        ) from error
    origin = typing.get_origin(found)
    if isinstance(origin, type) and issubclass(origin, _AWAITABLES):
        return (typing.get_args(found) or (Any,))[-1]
    return found


def _argument_base(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return as_base(value)


def _bad_argument(arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> str:
    named = [*((str(number), value) for number, value in enumerate(arguments, start=1)), *keywords.items()]
    for name, value in named:
        try:
            msgspec.json.encode(value, enc_hook=_argument_base, order="deterministic")
        except Exception:  # noqa: BLE001 - an author's class may raise anything
            return (
                f"argument {name}, a {type(value).__name__}, has no JSON, so a later attempt can't compare it: pass "
                "what identifies it, and take the rest from a closure (functools.partial, a function in the handler)"
            )
    return "its arguments have no JSON"
