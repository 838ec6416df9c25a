"""`subscribe` makes a FastStream subscriber of a function. It does not connect: the broker does, when it starts."""

from __future__ import annotations

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, ParamSpec, TypeVar

from faststream import AckPolicy
from faststream._internal.broker.registrator import Registrator
from faststream._internal.endpoint.call_wrapper import HandlerCallWrapper
from faststream._internal.endpoint.subscriber.call_item import CallsCollection
from faststream.nats.configs import NatsBrokerConfig
from faststream.nats.subscriber.config import NatsSubscriberConfig, NatsSubscriberSpecificationConfig
from faststream.nats.subscriber.specification import NatsSubscriberSpecification
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig

from opstream_journal.provisioning.subscriber_consumers import StartPosition

from .broker import EventsBroker
from .caller import caller_place, errors_at
from .errors import InvalidSubscription
from .model import COMPLETIONS, EVENT_CLASSES, Event
from .subscriber import EventSubscriber
from .subscription import ANY, Backoff, SubscriptionTerms, check_durable, check_numbers, check_start, subject_filters

P = ParamSpec("P")
R = TypeVar("R")

_DEFAULT_MAX_PENDING: Final = 1_000


def subscribe(
    broker: EventsBroker,
    kind: str,
    *,
    durable: str,
    events: str | Sequence[str] = COMPLETIONS,
    start: StartPosition = "new",
    ack: Literal["auto", "manual"] = "auto",
    backoff: Backoff | None = None,
    max_workers: int = 1,
    max_pending: int = _DEFAULT_MAX_PENDING,
    ordered: bool = False,
    ack_wait: float = 30.0,
    **options: Any,  # noqa: ANN401 - FastStream's own
) -> Callable[[Callable[P, R]], HandlerCallWrapper[P, R]]:
    """Call the decorated function with each event, at least once, in one of the processes that share the durable.

    Args:
        broker: calls the function, once it is started.
        kind: `book:upload-start`, `book:*`, `*:upload-start`, or `*` for all actions.
        durable: the subscription's name on the broker, which keeps its position while no process runs. Processes with
            the same durable share the events.
        events: some of `requested`, `started`, `progressed`, `step-started`, `step-succeeded`, `step-failed`,
            `waiting`, `attached`, `signaled`, `attempt-failed`, `cancel-requested`, `cleaning-up`, `succeeded`,
            `failed`, `canceled`, or `*` for all. The default is the last three of these.
        start: where a new durable begins: `new`, `all`, a stream sequence, or a moment.
        ack: `auto` acknowledges an event when its handler has returned; with `manual` the handler calls `event.ack()`.
        backoff: when an event is redelivered after its handler failed.
        max_workers: how many handlers run at once in this process.
        max_pending: how many events may be delivered and not settled, over all processes; events that wait for a retry
            count. At this limit the broker delivers no more.
        ordered: one event at a time over all processes, in stream order; a failing event delays all later ones.
        ack_wait: seconds without a heartbeat of this process until its events go to another process.
        options: FastStream's `filter`, `parser`, `decoder` and `dependencies` of a handler.

    Raises:
        InvalidSubscription: an argument is not valid. The message begins with the file and line of the caller.
    """
    place = caller_place()
    with errors_at(place):
        if not isinstance(broker, EventsBroker):
            raise InvalidSubscription(f"the first argument must be an EventsBroker, not {type(broker).__name__}")
        if ack not in ("auto", "manual"):  # a tuple, since a value of any type may be given
            raise InvalidSubscription(f"ack {ack!r} must be 'auto' or 'manual'")
        backoff = Backoff() if backoff is None else backoff
        check_numbers(
            max_workers=max_workers, max_pending=max_pending, ack_wait=ack_wait, backoff=backoff, is_ordered=ordered
        )
        subscription = SubscriptionTerms(
            durable=check_durable(durable),
            filters=tuple(subject_filters(kind, events)),
            start=check_start(start),
            is_manual=ack == "manual",
            backoff=backoff,
            max_workers=max_workers,
            max_pending=1 if ordered else max_pending,
            ack_wait=ack_wait,
        )
        unknown = options.keys() - {"filter", "parser", "decoder", "dependencies"}
        if unknown:
            raise InvalidSubscription(f"subscribe has no option {', '.join(sorted(unknown))}{_hint(unknown)}")
        if durable in broker.durables:
            raise InvalidSubscription(f"durable {durable!r} has a handler already: two handlers would share its events")
    names = set(EVENT_CLASSES) if ANY in events else {events} if isinstance(events, str) else set(events)

    def decorate(function: Callable[P, R]) -> HandlerCallWrapper[P, R]:
        with errors_at(place):
            _check_handler(function, names)
        subscriber = _build_subscriber(broker, subscription)
        Registrator.subscriber(broker, subscriber)
        broker.durables.append(durable)
        return typing.cast("HandlerCallWrapper[P, R]", subscriber(function, **options))

    return decorate


def _hint(unknown: set[str]) -> str:
    options = [one.name for one in inspect.signature(subscribe).parameters.values() if one.kind is one.KEYWORD_ONLY]
    close = [match for one in sorted(unknown) for match in difflib.get_close_matches(one, options, n=1)]
    return f": did you mean {', '.join(map(repr, close))}?" if close else f": it has {', '.join(options)}"


def _build_subscriber(broker: EventsBroker, subscription: SubscriptionTerms) -> EventSubscriber:
    subject = subscription.filters[0] if len(subscription.filters) == 1 else ""
    calls = CallsCollection[Msg]()
    outer = typing.cast("NatsBrokerConfig", broker.config)  # a composition, which FastStream treats as one
    specification = NatsSubscriberSpecification(
        _outer_config=outer,
        calls=calls,
        specification_config=NatsSubscriberSpecificationConfig(
            subject=subject,
            queue=None,
            filter_subjects=list(subscription.filters),
            title_=None,
            description_=None,
            # FastStream can't describe msgspec's types: the whole application's document would fail.
            include_in_schema=False,
        ),
    )
    config = NatsSubscriberConfig(
        subject=subject,
        sub_config=ConsumerConfig(filter_subjects=list(subscription.filters)),
        no_reply=True,
        _outer_config=outer,
        _ack_policy=AckPolicy.MANUAL,
    )
    return EventSubscriber(broker, subscription, config, specification, calls)


def _check_handler(function: Callable[..., Any], names: set[str]) -> None:
    """Check that the handler's annotation covers its events; otherwise the others would fail later, and be parked.

    Raises:
        InvalidSubscription: it does not.
    """
    name = getattr(function, "__name__", "the handler")
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters:
        raise InvalidSubscription(f"{name} must take the event as its first parameter")
    try:
        annotation = typing.get_type_hints(function, include_extras=True).get(parameters[0].name)
    except NameError:
        return  # only a type checker can resolve it
    if typing.get_origin(annotation) is typing.Annotated:
        return  # FastStream injects this parameter; the event is another one
    is_union = typing.get_origin(annotation) in {typing.Union, types.UnionType}
    accepted = typing.get_args(annotation) if is_union else (annotation,)
    classes = [one for one in accepted if isinstance(one, type) and issubclass(one, Event)]
    whole = annotation if is_union else typing.get_origin(annotation) or annotation
    if not classes and isinstance(whole, type) and whole is not object:
        wanted = _union_text([EVENT_CLASSES[one] for one in sorted(names)])
        raise InvalidSubscription(f"{name} takes {whole.__name__}, which is no event: let it take {wanted}")
    missing = [one for one in sorted(names) if not issubclass(EVENT_CLASSES[one], tuple(classes))]
    if classes and missing:
        raise InvalidSubscription(
            f"{name} takes {_union_text(classes)}, but is also subscribed to {', '.join(missing)}: "
            f"name its events with events=, or let it take {_union_text([EVENT_CLASSES[one] for one in missing])}"
        )


def _union_text(classes: list[type[Event]]) -> str:
    return " | ".join(one.__name__ for one in classes)
