"""What the data of all events share: times, errors, and the class that they derive from."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar

import msgspec

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time with its zone; RFC 3339 on the wire."""
NonEmpty = Annotated[str, msgspec.Meta(min_length=1)]


class OperationError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Why an operation or an attempt failed, as the client sees it (Azure guidelines, error object)."""

    code: int | str
    message: str
    target: str = ""


class ForcedEnd(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """An operator ended the operation although what lay on its subjects could not be folded."""

    sequence: int
    """Stream sequence of the last message before this event."""
    passed_over: int
    """Number of messages that are not events of the operation, or do not continue it."""
    reason: str = ""
    """The operator's reason."""


class EventData(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Base of the data of every event. `name` is the last token of the event's subject."""

    name: ClassVar[str] = ""
    type: ClassVar[str] = ""

    @property
    def wire_type(self) -> str:
        """Return the CloudEvents type under which this event is stored."""
        return self.type


class Trace(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """W3C Trace Context of the request, to be continued by the action."""

    traceparent: str
    tracestate: str = ""
