"""The arguments of a subscription: checks, and the subject filters and names they become. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from opstream_journal.provisioning.subscriber_consumers import StartPosition
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidName
from opstream_schemas.names import Kind, check_durable_name, check_name
from opstream_schemas.operation.backoff import backoff_delay

from .errors import InvalidSubscription
from .model import EVENT_CLASSES

ANY: Final = "*"

_PREFIX: Final = re.compile(r"[^\s.*>]+(?:\.[^\s.*>]+)*")
_EARLIEST_START: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_START: Final = datetime(2200, 1, 1, tzinfo=UTC)
_RESERVED_DURABLES: Final = ("projector", "webhooks", "archive", "runner")
_MAX_WORKERS: Final = 1_000
_MAX_PENDING: Final = 1_000_000
_MAX_BACKOFF: Final = 7 * 86_400.0
_KIND_EXAMPLES: Final = "'book:upload-start', 'book:*' or '*'"


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """When an event is redelivered after its handler failed, and when it is parked."""

    first: float = 1.0
    """Seconds after the first failure; doubled after each further one. Jitter takes off up to half."""
    longest: float = 300.0
    """Maximum seconds."""
    deliveries: int = 20
    """Failed deliveries until the event is parked; by default about 45 minutes after the first failure."""

    def delay(self, deliveries: int, factor: float) -> float:
        """Seconds until the next delivery, after `deliveries` of them; `factor` is the jitter, from 0.5 to 1."""
        return backoff_delay(deliveries, backoff=self.first, backoff_max=self.longest, factor=factor)


class SubscriptionTerms(msgspec.Struct, frozen=True, kw_only=True):
    """The checked arguments of `subscribe`."""

    durable: str
    filters: tuple[str, ...]
    start: StartPosition
    is_manual: bool
    backoff: Backoff
    max_workers: int
    max_pending: int
    ack_wait: float


def subject_filters(kind: str, events: Sequence[str]) -> list[str]:
    """The subject filters for events of an action, of all actions of a resource, or of all actions.

    Raises:
        InvalidSubscription: the kind or an event's name is not valid.
    """
    parsed = _parse_kind(kind)
    if not isinstance(events, Iterable):
        raise InvalidSubscription(f"events {events!r} must be names of events, or '*' for all")
    names = [events] if isinstance(events, str) else list(events)
    if not names:
        raise InvalidSubscription(f"events is empty: choose from {', '.join(EVENT_CLASSES)}, or '*' for all")
    if ANY in names:
        names = [ANY]
    for name in names:
        if not isinstance(name, str) or (name != ANY and name not in EVENT_CLASSES):
            raise InvalidSubscription(
                f"there is no event {name!r}: choose from {', '.join(EVENT_CLASSES)}, or '*' for all"
            )
    return [subjects.action_events_filter(parsed, name) for name in dict.fromkeys(names)]


def check_durable(name: str) -> str:
    """Return `name` if it is valid for a subscriber's durable.

    Raises:
        InvalidSubscription: it is not.
    """
    try:
        check_durable_name(name)
    except (InvalidName, TypeError) as error:
        raise InvalidSubscription(f"durable {name!r} is not a valid name: {error}") from error
    if name in _RESERVED_DURABLES:
        raise InvalidSubscription(f"durable {name!r} is the name of an opstream service: choose another name")
    return name


def check_prefix(prefix: str, option: str) -> str:
    """Return `prefix` if subjects can begin with it. `option` is its name, for the message.

    Raises:
        InvalidSubscription: it can't be.
    """
    if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
        raise InvalidSubscription(
            f"{option} {prefix!r} must be tokens with dots between them, e.g. '_INBOX_mailer' or 'JS.ops': "
            "no blank, no wildcard, no dot at an end"
        )
    return prefix


def check_start(start: StartPosition) -> StartPosition:
    """Return `start` if it is valid.

    Raises:
        InvalidSubscription: it is not.
    """
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise InvalidSubscription("start has no time zone: use datetime.now(UTC) or the like")
        if not _EARLIEST_START <= start <= _LATEST_START:
            raise InvalidSubscription(f"start {start} must be between 1970 and 2200: the broker counts nanoseconds")
    elif not (start in {"new", "all"} if isinstance(start, str) else _is_whole(start) and 1 <= start < 2**63):
        raise InvalidSubscription(f"start {start!r} must be 'new', 'all', a stream sequence from 1 on, or a datetime")
    return start


def check_numbers(*, max_workers: int, max_pending: int, ack_wait: float, backoff: Backoff, is_ordered: bool) -> None:
    """Check the numbers of a subscription.

    Raises:
        InvalidSubscription: a number is out of range, or contradicts another.
    """
    if not isinstance(backoff, Backoff):
        raise InvalidSubscription(f"backoff {backoff!r} must be a Backoff(first=…, longest=…, deliveries=…)")
    whole = {"max_workers": max_workers, "max_pending": max_pending, "backoff: deliveries": backoff.deliveries}
    for name, value in whole.items():
        if not _is_whole(value):
            raise InvalidSubscription(f"{name} {value!r} must be a whole number")
    for name, seconds in {"ack_wait": ack_wait, "backoff: first": backoff.first, "longest": backoff.longest}.items():
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise InvalidSubscription(f"{name} {seconds!r} must be a number of seconds")
    if not 1 <= max_workers <= _MAX_WORKERS:
        raise InvalidSubscription(f"max_workers {max_workers} must be from 1 to {_MAX_WORKERS}")
    if is_ordered and max_workers != 1:
        raise InvalidSubscription("ordered needs max_workers=1: several at once have no order")
    if max_pending < max_workers:
        raise InvalidSubscription(f"max_pending {max_pending} must be at least max_workers, which is {max_workers}")
    if max_pending > _MAX_PENDING:
        raise InvalidSubscription(f"max_pending {max_pending} must be at most {_MAX_PENDING}")
    if not 1.0 <= ack_wait <= 3600.0:
        raise InvalidSubscription(f"ack_wait {ack_wait:g} must be from 1 to 3600 seconds")
    if not 0.0 < backoff.first <= backoff.longest:
        raise InvalidSubscription("backoff: first must be more than 0 seconds, and longest at least as much")
    if backoff.longest > _MAX_BACKOFF:
        raise InvalidSubscription(f"backoff: longest {backoff.longest:g} must be at most {_MAX_BACKOFF:g} seconds")
    if backoff.deliveries < 1:
        raise InvalidSubscription(f"backoff: deliveries {backoff.deliveries} must be at least 1")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _parse_kind(text: str) -> Kind:
    if text == ANY:
        return Kind(ANY, ANY)
    resource, _, action = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    try:
        return Kind(
            resource if resource == ANY else check_name(resource, "resource"),
            action if action == ANY else check_name(action, "action"),
        )
    except InvalidName as error:
        raise InvalidSubscription(
            f"{text!r} is not something to subscribe to ({error}): write {_KIND_EXAMPLES}"
        ) from error
