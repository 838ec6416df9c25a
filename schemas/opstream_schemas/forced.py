"""What a `failed` event says of an end that an operator forced (ADR 0014). Callers: `events.py`, `survey.py`."""

from __future__ import annotations

import msgspec


class ForcedEnd(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """An operator ended the operation although what lay on its subjects could not be folded."""

    sequence: int
    """Stream sequence of the last message that lay there."""
    passed_over: int
    """Messages there that are no part of the operation: no events, or such as do not continue it."""
    reason: str = ""
    """The operator's."""
