"""What the events of signals have: which one is waited for, and what was sent (docs/adr/0071)."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from .base import EventData


class SignalWait(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What an operation waits for under the name of its wait, and who may send it."""

    schema: msgspec.Raw
    """JSON Schema of its payload."""
    approvers: int = 1
    """How many different principals have to send it."""
    not_requester: bool = False
    """True if the principal that requested the operation may not."""

    @property
    def needs_proof(self) -> bool:
        """Return True if it matters who sends the signal, so that its sender has to be proven."""
        return self.approvers > 1 or self.not_requester


class RefusedSignal(msgspec.Struct, frozen=True, kw_only=True):
    """A signal that came before the wait, and is passed over."""

    position: int
    """Of its event in the operation."""
    reason: str


class Signaled(EventData, frozen=True, kw_only=True):
    """A client sent a signal to the operation. It is kept until a wait for its name takes it."""

    name: ClassVar[str] = "signaled"
    type: ClassVar[str] = "opstream.action.signaled.v1"

    signal: str = msgspec.field(name="name")
    payload: msgspec.Raw
    by: str = ""
    """Who sent it, as `Requested.caller`; empty for an unknown sender."""
    via: str = ""
    """`url` if it came by the URL of the wait, which proves nobody; otherwise empty."""
    request_id: str = ""
    """A hash of the request's Repeatability headers, the same for the same request; empty without them."""
    request_hash: str = ""
    """SHA-256 (hex) of name, payload and sender, by which a repeated request is told from another one; empty without
    `request_id`."""
