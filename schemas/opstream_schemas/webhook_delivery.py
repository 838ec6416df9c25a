"""Webhook deliveries that wait on the broker, and the record of each attempt to deliver. Pure.

A delivery sends the outcome of one operation to one endpoint.
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
"""Events that are delivered, by the last token of their subjects."""
CALLBACK_ENDPOINT: Final = "callback"
"""Endpoint name of a request's `Operation-Callback`; no configured endpoint may have it."""

_Instant = Annotated[datetime, msgspec.Meta(tz=True)]
_Number = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class WebhookDelivery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A delivery that is not made yet: the body of a message in the stream WEBHOOKS."""

    operation_id: str
    action: str
    """Resource and action, `book:upload-start`."""
    event: str
    """`succeeded`, `failed` or `canceled`."""
    sequence: _Number
    """Stream sequence of that event in OPERATIONS."""
    endpoint: str
    """Name of a configured endpoint, or `CALLBACK_ENDPOINT`."""
    callback: str = ""
    """URL of a callback. The URL of a configured endpoint is looked up at each attempt, since it may change."""
    attempt: _Number = 1
    begun: _Instant
    """Time of the delivery's first scheduling."""
    own_id: str = ""
    """The client's own id of the operation, for a callback (`Requested.own_id`); empty if it is `operation_id`."""


class DeliveryOutcome(StrEnum):
    """The outcome of an attempt; the last token of its record's subject."""

    DELIVERED = "delivered"
    RETRYING = "retrying"
    GAVE_UP = "gave-up"


class DeliveryAttempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The record of one attempt in the stream DELIVERIES. Nothing in it is secret."""

    operation_id: str
    action: str
    event: str
    endpoint: str
    url: str = ""
    """URL without query; empty if the endpoint is no longer configured."""
    webhook_id: str = ""
    """Id of the delivery, the same in each of its attempts; empty if nothing was sent."""
    attempt: int
    """1 for the first. A number repeats if the service died before it could record the attempt."""
    at: _Instant
    """Time of its start."""
    duration: float
    """Seconds."""
    outcome: DeliveryOutcome
    status: int = 0
    """HTTP status; 0 without a response."""
    error: str = ""
    """Why there was no response, or why it did not count."""
    next_at: _Instant | None = None
    """Time of the next attempt; None if there is none."""


class RedeliveryRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Asks a webhooks service to make a failed delivery again; the body of a message on `REDELIVER_SUBJECT`."""

    operation_id: str
    endpoint: str


class RedeliveryOutcome(StrEnum):
    """What became of a `RedeliveryRequest`."""

    SENT = "sent"
    """The delivery is due now, with as many attempts as a new one."""
    NOT_FAILED = "not-failed"
    """No attempt of it has failed, or one succeeded since."""
    EXPIRED = "expired"
    """The journal does not hold the events any more that it needs."""
    UNAVAILABLE = "unavailable"
    """The broker did not answer."""


class RedeliveryAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The answer to a `RedeliveryRequest`."""

    outcome: str
    """One of `RedeliveryOutcome`."""
    detail: str = ""


_Item = TypeVar("_Item", WebhookDelivery, DeliveryAttempt)

_encode: Final = msgspec.json.Encoder().encode
_decode_delivery: Final = msgspec.json.Decoder(WebhookDelivery).decode
_decode_attempt: Final = msgspec.json.Decoder(DeliveryAttempt).decode
_decode_request: Final = msgspec.json.Decoder(RedeliveryRequest).decode
_decode_answer: Final = msgspec.json.Decoder(RedeliveryAnswer).decode


def encode_record(item: WebhookDelivery | DeliveryAttempt | RedeliveryRequest | RedeliveryAnswer) -> bytes:
    """Return the bytes of a delivery, a record, a request or an answer on the broker."""
    return _encode(item)


def _validated(item: _Item) -> _Item:
    """Return the item if its names are valid: subjects are built from them."""
    check_operation_id(item.operation_id)
    check_name(item.endpoint, "endpoint")
    Kind.parse(item.action)
    if item.event not in OUTCOME_EVENTS:
        raise ValueError(f"its event must be one of {', '.join(OUTCOME_EVENTS)}")
    return item


def decode_delivery(payload: bytes) -> WebhookDelivery:
    """Decode a message of the stream WEBHOOKS.

    Raises:
        InvalidEvent: it is not a delivery.
    """
    try:
        return _validated(_decode_delivery(payload))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"not a delivery: {error}") from error


def decode_delivery_attempt(payload: bytes) -> DeliveryAttempt:
    """Decode a message of the stream DELIVERIES.

    Raises:
        InvalidEvent: it is not a record of an attempt.
    """
    try:
        return _validated(_decode_attempt(payload))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"not a record of a delivery: {error}") from error


def decode_redelivery_request(payload: bytes) -> RedeliveryRequest:
    """Decode a message on `REDELIVER_SUBJECT`.

    Raises:
        InvalidEvent: it is not a request.
    """
    try:
        request = _decode_request(payload)
        check_operation_id(request.operation_id)
        check_name(request.endpoint, "endpoint")
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"not a request to deliver again: {error}") from error
    return request


def decode_redelivery_answer(payload: bytes) -> RedeliveryAnswer:
    """Decode the answer to a request on `REDELIVER_SUBJECT`.

    Raises:
        InvalidEvent: it is not an answer.
    """
    try:
        return _decode_answer(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"not an answer to a request to deliver again: {error}") from error
