"""The error of a text that is no filter, no order, no selection."""

from __future__ import annotations

from typing import Final

_SHOWN: Final = 40


class FilterRefused(ValueError):
    """A part of a query for a list is wrong. The message says where, and what is allowed there.

    Args:
        message: for a person.
        position: of the first wrong character, from 1; 0 where there is none.
        parameter: the query parameter.
    """

    def __init__(self, message: str, position: int = 0, *, parameter: str = "filter") -> None:
        super().__init__(f"{parameter}, character {position}: {message}" if position else f"{parameter}: {message}")
        self.position = position
        self.parameter = parameter


def shown(text: str) -> str:
    """Return a part of a request for a message: quoted, and short."""
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}...")
