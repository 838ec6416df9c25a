"""`subscribe`: from arguments to a FastStream subscriber. Callers: services, at import; nothing is connected here."""

from __future__ import annotations

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
from .errors import InvalidSubscription
from .model import COMPLETIONS, EVENT_CLASSES, Event
from .subscriber import EventSubscriber, SubscriptionTerms
from .subscription import ANY, Backoff, check_durable, check_numbers, check_start, subject_filters

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
    """Have a function called with each event, at least once, in this process or another that uses the same durable.

    Args:
        broker: what it is called by, once that is started.
        kind: `book:upload-start`, `book:*`, `*:upload-start`, or `*` for all actions.
        durable: names the subscription on the broker, which keeps its place while no process is there. Processes with
            the same durable share the events.
        events: some of `requested`, `started`, `progressed`, `attempt-failed`, `cancel-requested`, `succeeded`,
            `failed`, `canceled`, or `*` for all. The default is the last three.
        start: where a durable begins that does not exist yet: `new`, `all`, a stream sequence, or a moment.
        ack: `auto` acknowledges once the handler has returned; with `manual` that is left to `event.ack()`.
        backoff: when an event comes again whose handler failed.
        max_workers: handlers at once in this process.
        max_pending: events that may be delivered and not settled yet, those that wait for a retry included, over all
            processes. When there are so many, nothing else is delivered.
        ordered: one event at a time over all processes, in the order of the stream; one that fails holds up the rest.
        ack_wait: seconds without a sign of this process after which its events go to another one.
        options: FastStream's `filter`, `parser`, `decoder` and `dependencies` of a handler.

    Raises:
        InvalidSubscription: an argument can't be right.
    """
    if not isinstance(broker, EventsBroker):
        raise InvalidSubscription(f"the first argument must be an EventsBroker, not {type(broker).__name__}")
    if ack not in {"auto", "manual"}:
        raise InvalidSubscription(f"ack {ack!r} must be 'auto' or 'manual'")
    given = backoff or Backoff()
    check_numbers(
        max_workers=max_workers, max_pending=max_pending, ack_wait=ack_wait, backoff=given, is_ordered=ordered
    )
    told = SubscriptionTerms(
        durable=check_durable(durable),
        filters=tuple(subject_filters(kind, events)),
        start=check_start(start),
        is_manual=ack == "manual",
        backoff=given,
        max_workers=max_workers,
        max_pending=1 if ordered else max_pending,
        ack_wait=ack_wait,
    )
    unknown = options.keys() - {"filter", "parser", "decoder", "dependencies"}
    if unknown:
        raise InvalidSubscription(f"subscribe has no option {', '.join(sorted(unknown))}")
    if durable in broker.durables:
        raise InvalidSubscription(f"durable {durable!r} has a handler already: two would take each other's events")
    names = set(EVENT_CLASSES) if ANY in events else {events} if isinstance(events, str) else set(events)

    def decorate(function: Callable[P, R]) -> HandlerCallWrapper[P, R]:
        _check_handler(function, names)
        subscriber = _build_subscriber(broker, told)
        Registrator.subscriber(broker, subscriber)
        broker.durables.append(durable)
        return typing.cast("HandlerCallWrapper[P, R]", subscriber(function, **options))

    return decorate


def _build_subscriber(broker: EventsBroker, told: SubscriptionTerms) -> EventSubscriber:
    subject = told.filters[0] if len(told.filters) == 1 else ""
    calls = CallsCollection[Msg]()
    outer = typing.cast("NatsBrokerConfig", broker.config)  # a composition, which FastStream takes for one, too
    specification = NatsSubscriberSpecification(
        _outer_config=outer,
        calls=calls,
        specification_config=NatsSubscriberSpecificationConfig(
            subject=subject,
            queue=None,
            filter_subjects=list(told.filters),
            title_=None,
            description_=None,
            # FastStream can't describe msgspec's types, and would fail for the whole application.
            include_in_schema=False,
        ),
    )
    config = NatsSubscriberConfig(
        subject=subject,
        sub_config=ConsumerConfig(filter_subjects=list(told.filters)),
        no_reply=True,
        _outer_config=outer,
        _ack_policy=AckPolicy.MANUAL,
    )
    return EventSubscriber(broker, told, config, specification, calls)


def _check_handler(function: Callable[..., Any], names: set[str]) -> None:
    """A handler must take what it is subscribed to: later, each event of another type would fail, and be parked."""
    name = getattr(function, "__name__", "the handler")
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters:
        raise InvalidSubscription(f"{name} must take the event as its first parameter")
    try:
        hint = typing.get_type_hints(function, include_extras=True).get(parameters[0].name)
    except NameError:
        return  # a type that only the type checker sees
    if typing.get_origin(hint) is typing.Annotated:
        return  # FastStream injects it, and the event is another one
    is_union = typing.get_origin(hint) in {typing.Union, types.UnionType}
    taken = typing.get_args(hint) if is_union else (hint,)
    classes = [one for one in taken if isinstance(one, type) and issubclass(one, Event)]
    whole = hint if is_union else typing.get_origin(hint) or hint
    if not classes and isinstance(whole, type) and whole is not object:
        wanted = _union_text([EVENT_CLASSES[one] for one in sorted(names)])
        raise InvalidSubscription(f"{name} takes {whole.__name__}, which no event is: let it take {wanted}")
    missing = [one for one in sorted(names) if not issubclass(EVENT_CLASSES[one], tuple(classes))]
    if classes and missing:
        raise InvalidSubscription(
            f"{name} takes {_union_text(classes)}, and is subscribed to {', '.join(missing)} too: "
            f"name what it takes with "
            f"events=, or let it take {_union_text([EVENT_CLASSES[one] for one in missing])}"
        )


def _union_text(classes: list[type[Event]]) -> str:
    return " | ".join(one.__name__ for one in classes)
