"""Says what is wrong with a body that msgspec can't read and Python's `json` can: a number or a text of no value.

msgspec says of half a surrogate pair that the input is truncated, and of a number out of range not where it is.
Pure. It runs for refused bodies only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from .input_problems import format_target


def find_unreadable(document: bytes) -> tuple[str, str]:
    """Return what no decoder can represent in a document that fits the grammar of JSON, and its place.

    Args:
        document: JSON that msgspec refused, nested no deeper than allowed.

    Returns:
        The problem and the target; two empty texts if it is something else.
    """
    try:
        value = json.loads(document, parse_int=float)
    except (ValueError, RecursionError):
        return "", ""
    for path, one in _parts(value, []):
        if isinstance(one, float) and math.isinf(one):
            return "a number is beyond the range of a double", format_target(path)
        if isinstance(one, str) and not _is_text(one):
            return "a text has half of a surrogate pair: write both halves, or the character itself", format_target(
                path
            )
    return "", ""


def _parts(value: Any, path: list[str | int]) -> Iterator[tuple[list[str | int], Any]]:  # noqa: ANN401 - JSON
    yield path, value
    if isinstance(value, dict):
        for name, child in value.items():
            yield path, name
            yield from _parts(child, [*path, name])
    elif isinstance(value, list):
        for number, child in enumerate(value):
            yield from _parts(child, [*path, number])


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
