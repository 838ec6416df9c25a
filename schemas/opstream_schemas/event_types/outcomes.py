"""The events that end an operation."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from opstream_schemas.payloads.payload_ref import PayloadRef

from .base import EventData, ForcedEnd, OperationError


class Succeeded(EventData, frozen=True, kw_only=True):
    """Terminal: the action returned."""

    name: ClassVar[str] = "succeeded"
    type: ClassVar[str] = "opstream.action.succeeded.v1"
    claim_type: ClassVar[str] = "opstream.action.succeeded.v2"
    """Of a result that is a payload."""

    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """JSON; `UNSET` if it is a payload."""
    result_payload: PayloadRef | None = None
    """Where the result is, if it is too large for an event; None if it is here."""

    @property
    def wire_type(self) -> str:
        """Return the type of version 2 for a result that is a payload, otherwise that of version 1."""
        return self.type if self.result_payload is None else self.claim_type


class Failed(EventData, frozen=True, kw_only=True):
    """Terminal: the action failed, or opstream gave it up."""

    name: ClassVar[str] = "failed"
    type: ClassVar[str] = "opstream.action.failed.v1"

    error: OperationError
    forced: ForcedEnd | None = None


class Canceled(EventData, frozen=True, kw_only=True):
    """Terminal: the operation stopped at a client's request."""

    name: ClassVar[str] = "canceled"
    type: ClassVar[str] = "opstream.action.canceled.v1"

    by: str = ""
    """Caller of the cancel request (`Requested.caller`)."""
    reason: str = ""
