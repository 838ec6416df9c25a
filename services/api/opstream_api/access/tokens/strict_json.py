"""JSON of others, read strictly: an object with the same member twice is refused, and so is what is no JSON. Pure.

Two readers may take different ones of two members with one name. A token that says two things proves neither.
"""

from __future__ import annotations

import json
from typing import Any, Final


class NotStrict(ValueError):
    """A text that is no object of JSON, or has a member twice."""


def decode_object(data: bytes) -> dict[str, Any]:
    """Decode an object.

    Raises:
        NotStrict: it is none, a member is there twice, at any depth, or it is nested too deeply.
    """
    try:
        found = _DECODER.decode(data.decode())
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError among them
        raise NotStrict(str(error) or "it is nested too deeply") from error
    if not isinstance(found, dict):
        raise NotStrict("it is no object")
    return found


def _without_duplicates(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) != len(members):
        raise NotStrict("a member is there twice")
    return found


def _refuse_constant(name: str) -> None:
    raise NotStrict(f"{name} is no JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
