"""The JSON of a value of an author's, whatever its type's own code does, and why a value has none."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from opstream_runner.errors import RunnerError
from opstream_schemas.text import truncate_text

_MAX_DEPTH: Final = 200
"""Levels in which the cause of a refusal is looked for; a result has half as many at most."""
_WORDS_FOR_NUMBERS: Final = (b"NaN", b'Infinity"', b'"nan"', b'inf"')
"""What msgspec writes for a decimal, or a float as a key, that is no number in JSON. Any other float becomes `null`."""
_NAME_LIMIT: Final = 200
_NAME: Final = "(a name)"
"""In a path: the key of a mapping."""
_NO_NUMBER: Final = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")
"""NaN and infinity in MessagePack: all bits of the exponent are set. A text may look like it, too."""
_BASES: Final[tuple[tuple[type, Callable[[Any], Any]], ...]] = (
    (str, str.__str__),
    (int, int.__index__),
    (float, float.__float__),
)


class NoJson(RunnerError, ValueError):
    """A value has no JSON. The message says which part of it, and begins with a verb: "has no JSON: …"."""


def encode_json(value: Any) -> bytes:  # noqa: ANN401 - any value of an author's
    """Return the JSON of a value. `check_numbers` finds what is lost in it.

    Raises:
        NoJson: it has none.
    """
    try:
        return msgspec.json.encode(value, enc_hook=as_base)
    except Exception as error:
        raise NoJson(f"has no JSON: {_unencodable(value, error)}") from error


def check_numbers(value: Any, encoded: bytes) -> None:  # noqa: ANN401
    """Check that no number of a value was lost: NaN and infinity become `null` or words.

    Raises:
        NoJson: it has a number that JSON can't hold.
    """
    is_suspect = any(word in encoded for word in _WORDS_FOR_NUMBERS)
    if is_suspect or (b"null" in encoded and value is not None and _may_hold_lost_number(value)):
        _check_numbers(value)


def find_broken_raw(value: Any) -> str:  # noqa: ANN401
    """Return which part of a value is a `msgspec.Raw` that holds no JSON, for a message."""
    for path, part in _parts(value, "", 0):
        if isinstance(part, msgspec.Raw):
            try:
                str(part, "utf-8")
                msgspec.json.decode(part, type=msgspec.Raw)
            except ValueError:
                return place_text(path)
    return "it"


def as_base(value: Any) -> Any:  # noqa: ANN401
    """Return what a value of a subclass is in JSON (`numpy.float64` is a float), whatever its methods say.

    Raises:
        NotImplementedError: it has no JSON. msgspec asks its hooks for this exception, and names the type then.
    """
    for base, plain in _BASES:
        if issubclass(type(value), base):
            return plain(value)
    raise NotImplementedError


def _may_hold_lost_number(result: Any) -> bool:  # noqa: ANN401
    """Return True if a result may have a float that is no number: MessagePack has them, and is written fast."""
    try:
        packed = msgspec.msgpack.encode(result, enc_hook=as_base)
    except Exception:  # noqa: BLE001 - a number of more than 64 bits, say
        return True
    return _NO_NUMBER.search(packed) is not None


def _check_numbers(result: Any) -> None:  # noqa: ANN401
    for path, value in _parts(result, "", 0):
        is_lost = (isinstance(value, float) and not math.isfinite(value)) or (
            isinstance(value, Decimal) and not value.is_finite()
        )
        if is_lost:
            why = f"{place_text(path)} is {value}, which is no number in JSON; return None, declared as `… | None`"
            raise NoJson(f"has no JSON: {why}")


def _unencodable(result: Any, error: Exception) -> str:  # noqa: ANN401
    """Return which member has no JSON, and why."""
    if isinstance(error, RecursionError):
        return "it contains itself, or nests too deeply"
    found = ("", result)
    # The innermost part that fails alone is the cause.
    for path, value in _parts(result, "", 0):
        if path.startswith(found[0]) and _NAME not in path and not _is_encodable(value):
            found = (path, value)
    path, value = found
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        return f"{place_text(path)} is a generator; return a list"
    if isinstance(error, UnicodeEncodeError):
        return f"{place_text(path)} has half of a surrogate pair, which is no text"
    if isinstance(value, int):
        return f"{place_text(path)} is a number too large; return it as text"
    if isinstance(value, dict) and (key := _unencodable_key(value)) is not None:
        return f"{place_text(path)} has {key}, which is no name in JSON: use text, or return a list of pairs"
    return f"{place_text(path)} is of the type {truncate_text(type(value).__name__, _NAME_LIMIT)}, which has no JSON"


def _unencodable_key(value: dict[Any, Any]) -> str | None:
    """Return which key of a mapping JSON does not have; None if it has all."""
    for key in value:
        if not _is_encodable({key: None}):
            kind = truncate_text(type(key).__name__, _NAME_LIMIT)
            return "the key None" if key is None else f"a key of the type {kind}"
    return None


def _is_encodable(value: Any) -> bool:  # noqa: ANN401
    try:
        msgspec.json.encode(value, enc_hook=as_base)
    except Exception:  # noqa: BLE001 - an author's class may raise anything
        return False
    return True


def _parts(value: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """Yield each part of a value with its path, outer ones first."""
    yield path, value
    if depth == _MAX_DEPTH:
        return
    for step, child in _children(value):
        inner = step if not path else f"{path}{step}" if step.startswith("[") else f"{path}.{step}"
        yield from _parts(child, inner, depth + 1)


def _children(value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    if isinstance(value, msgspec.Struct):
        for name, encoded in zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True):
            yield encoded, getattr(value, name)
    elif isinstance(value, Mapping):
        for key, child in value.items():
            yield _NAME, key
            yield str(key) if isinstance(key, str) and key.isidentifier() else f"[{key!r}]", child
    elif isinstance(value, list | tuple | set | frozenset):
        for number, child in enumerate(value):
            yield f"[{number}]", child
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield field.name, getattr(value, field.name, None)
    elif hasattr(type(value), "__attrs_attrs__"):
        for attribute in type(value).__attrs_attrs__:
            yield attribute.name, getattr(value, attribute.name, None)


def place_text(path: str) -> str:
    return f"its member `{truncate_text(path, _NAME_LIMIT)}`" if path else "it"
