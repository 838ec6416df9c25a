"""The record of an erasure. It is in no event: it takes the place of the key that was destroyed (docs/adr/0076)."""

from __future__ import annotations

from typing import Final

import msgspec

from .base import Instant

REASON_LIMIT: Final = 500
"""Bytes of the reason that are kept."""


class Erasure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """That the key of an operation was destroyed: when, by whom and why."""

    at: Instant
    by: str = ""
    """Who asked for it, as `Requested.caller`; empty for an unknown one."""
    reason: str = ""
