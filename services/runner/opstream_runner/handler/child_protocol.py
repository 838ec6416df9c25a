"""What the runner and the process of an isolated action say to each other: JSON, each message after its length.

Callers: `isolation.py` and `child.py`, which are always of the same release.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

from .invocation import Postponed, Raised, Returned, Stopped

FRAME_HEADER: Final = struct.Struct("!I")
"""Bytes of the message that follows."""


class ChildStart(msgspec.Struct, frozen=True, kw_only=True):
    """The runner's only message: what to run."""

    module: str
    """Import path of the module that holds the action."""
    kind: str
    """`resource:action`."""
    input: msgspec.Raw
    operation_id: str
    resource_id: str
    attempt: int
    traceparent: str
    limit: int
    """Bytes of JSON that the result may have."""
    path: list[str]
    """The runner's `sys.path`."""
    log_level: int
    runner: int
    """Process id of the runner."""


class Begun(msgspec.Struct, frozen=True, tag=True):
    """The action was found; its handler is called now."""


class Reported(msgspec.Struct, frozen=True, tag=True):
    """Progress that is worth an event."""

    percent: float
    message: str


ChildMessage = Begun | Reported | Returned | Raised | Postponed | Stopped
"""What the child says; an outcome is its last word."""

decode_start: Final = msgspec.json.Decoder(ChildStart).decode
decode_child_message: Final = msgspec.json.Decoder(ChildMessage).decode


def encode_frame(message: Any) -> bytes:  # noqa: ANN401 - any of the above
    """The bytes of a message, length first.

    Raises:
        msgspec.EncodeError, UnicodeEncodeError, OverflowError: it holds what has no JSON.
    """
    encoded = msgspec.json.encode(message)
    return FRAME_HEADER.pack(len(encoded)) + encoded
