"""What the webhooks service keeps on the broker: deliveries that wait, and a record of every attempt to make one.

A delivery is the outcome of one operation on its way to one endpoint. Pure. Callers: the webhooks service, and the
command that shows the records.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, TypeVar

import msgspec

from .errors import InvalidEvent
from .events import Canceled, Failed, Succeeded
from .names import Kind, check_name, check_operation_id

OUTCOME_EVENTS: Final = (Succeeded.name, Failed.name, Canceled.name)
"""The events that are delivered, by the last token of their subjects."""
CALLBACK_ENDPOINT: Final = "callback"
"""The endpoint of a request's own `Operation-Callback`; no configured one has this name."""

_Instant = Annotated[datetime, msgspec.Meta(tz=True)]
_Number = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class WebhookDelivery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A delivery that is to be tried: the body of a message in the stream WEBHOOKS."""

    operation_id: str
    action: str
    """Resource and action, `book:upload-start`."""
    event: str
    """`succeeded`, `failed` or `canceled`."""
    sequence: _Number
    """Stream sequence of that event in OPERATIONS."""
    endpoint: str
    """Name of a configured one, or `CALLBACK`."""
    callback: str = ""
    """The URL of a callback; a configured endpoint's is looked up at each attempt, so that it may change."""
    attempt: _Number = 1
    begun: _Instant
    """When the delivery came up."""


class DeliveryOutcome(StrEnum):
    """What became of an attempt; the last token of its record's subject."""

    DELIVERED = "delivered"
    RETRYING = "retrying"
    GAVE_UP = "gave-up"


class DeliveryAttempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One attempt, as the stream DELIVERIES records it. Nothing in it is secret."""

    operation_id: str
    action: str
    event: str
    endpoint: str
    url: str = ""
    """Without query; empty if the endpoint is not known any more."""
    webhook_id: str = ""
    """The same in every attempt of a delivery; empty if nothing was sent."""
    attempt: int
    """1 for the first; the same number again if the service died before it could record."""
    at: _Instant
    """When it began."""
    duration: float
    """Seconds."""
    outcome: DeliveryOutcome
    status: int = 0
    """HTTP status; 0 without an answer."""
    error: str = ""
    """Why there was no answer, or none that counts."""
    next_at: _Instant | None = None
    """When the next attempt is due."""


_Item = TypeVar("_Item", WebhookDelivery, DeliveryAttempt)

_encode: Final = msgspec.json.Encoder().encode
_decode_delivery: Final = msgspec.json.Decoder(WebhookDelivery).decode
_decode_attempt: Final = msgspec.json.Decoder(DeliveryAttempt).decode


def encode_record(item: WebhookDelivery | DeliveryAttempt) -> bytes:
    """Its bytes on the broker."""
    return _encode(item)


def _validated(item: _Item) -> _Item:
    """Subjects are built from these."""
    check_operation_id(item.operation_id)
    check_name(item.endpoint, "endpoint")
    Kind.parse(item.action)
    if item.event not in OUTCOME_EVENTS:
        raise ValueError(f"its event must be one of {', '.join(OUTCOME_EVENTS)}")
    return item


def decode_delivery(payload: bytes) -> WebhookDelivery:
    """Decode a message of WEBHOOKS.

    Raises:
        InvalidEvent: it is none.
    """
    try:
        return _validated(_decode_delivery(payload))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"not a delivery: {error}") from error


def decode_delivery_attempt(payload: bytes) -> DeliveryAttempt:
    """Decode a message of DELIVERIES.

    Raises:
        InvalidEvent: it is none.
    """
    try:
        return _validated(_decode_attempt(payload))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"not a record of a delivery: {error}") from error
