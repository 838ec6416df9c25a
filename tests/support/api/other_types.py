"""A type with the name of another type, in another module."""

from __future__ import annotations

import msgspec


class Request(msgspec.Struct):
    """Another type than `typed_actions.Request`, with its name."""

    number: int
