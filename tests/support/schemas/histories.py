"""Histories of operations, by hand or drawn by Hypothesis, and strategies for their parts.

Each event of a `History` was encoded, decoded and folded, as in the journal.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any, ClassVar, Self

import msgspec
from hypothesis import strategies as st

from opstream_schemas.errors import DecisionRefused
from opstream_schemas.event_types.claims import Attachment
from opstream_schemas.events import (
    Attached,
    AttemptFailed,
    Canceled,
    CancelRequested,
    Event,
    EventData,
    Failed,
    ForcedEnd,
    OperationError,
    Progressed,
    RecordedEvent,
    RefusedSignal,
    Requested,
    Signaled,
    SignalWait,
    Started,
    StepFailed,
    StepStarted,
    StepSucceeded,
    Succeeded,
    Trace,
    WaitBegun,
    decode_event,
    encode_event,
)
from opstream_schemas.names import ALWAYS_RESERVED, RESERVED_RESOURCES, Kind
from opstream_schemas.operation.commands import (
    AttachFile,
    BeginWait,
    Command,
    ConfirmCancel,
    Fail,
    FailAttempt,
    FailOperation,
    RecordStep,
    ReportProgress,
    RequestAction,
    RequestCancel,
    StartAttempt,
    Succeed,
    decide,
)
from opstream_schemas.operation.fold import first_event, fold_for_reader, next_event
from opstream_schemas.operation.state import Operation
from opstream_schemas.payloads.payload_ref import MAX_PAYLOAD, PayloadRef

NOW = datetime(2026, 3, 14, 9, 26, 53, 589793, tzinfo=UTC)
DEADLINE = NOW + timedelta(days=1)


class FromTheFuture(EventData, frozen=True, kw_only=True):
    """An event of an unknown version: it encodes, but decodes without data."""

    name: ClassVar[str] = "paused"
    type: ClassVar[str] = "opstream.action.paused.v1"

    until: str = "spring"


def request(**changes: Any) -> Requested:
    """An ordinary request."""
    fields: dict[str, Any] = {
        "resource": "book",
        "resource_id": "42",
        "action": "upload-start",
        "action_version": 1,
        "input": msgspec.Raw(b'{"files":[]}'),
        "request_hash": "0" * 64,
        "deadline": DEADLINE,
        "retention": 86_400.0,
    }
    return Requested(**(fields | changes))


class History:
    """One operation's events, each appended to the state of the earlier ones."""

    def __init__(self, operation_id: str = "op-1", *, start: datetime = NOW) -> None:
        self.id = operation_id
        self.start = start
        self.payloads: list[bytes] = []
        self.events: list[RecordedEvent] = []
        self.states: list[Operation] = []

    @property
    def operation(self) -> Operation:
        """The state after the last event."""
        return self.states[-1]

    @property
    def tokens(self) -> list[str]:
        """The tokens of all attempts so far, oldest first."""
        return [event.data.token for event in self.events if isinstance(event.data, Started)]

    def next_event(self, data: EventData) -> Event:
        """The next event of this history; it is not appended."""
        number = len(self.events) + 1
        time = self.start + timedelta(seconds=number - 1)
        if isinstance(data, Requested) and not self.states:
            return first_event(self.id, data, id=f"event-{number}", source="test", time=time)
        return next_event(self.operation, data, id=f"event-{number}", source="test", time=time)

    def recorded(self, data: EventData, *, gap: int = 1) -> RecordedEvent:
        """The next event as the journal would hold it, `gap` messages later; it is not appended."""
        last = self.events[-1].sequence if self.events else 0
        return decode_event(encode_event(self.next_event(data)), last + gap)

    def append(self, *datas: EventData, gap: int = 1) -> Self:
        """Store and fold events, as a reader does: it skips unknown types."""
        for data in datas:
            last = self.events[-1].sequence if self.events else 0
            payload = encode_event(self.next_event(data))
            event = decode_event(payload, last + gap)
            operation = fold_for_reader(self.states[-1] if self.states else None, [event])
            assert operation is not None
            self.payloads.append(payload)
            self.events.append(event)
            self.states.append(operation)
        return self

    def act(self, command: Command, *, gap: int = 1) -> EventData | None:
        """Decide and store. Raises what `decide` raises."""
        data = decide(self.states[-1] if self.states else None, command)
        if data is not None:
            self.append(data, gap=gap)
        return data


def started(attempt: int = 1, *, ticket: int = 1, token: str = "") -> Started:
    """The start of an attempt; its token contains its number."""
    return Started(attempt=attempt, runner="runner-a", token=token or f"token-{attempt}", ticket=ticket, lease=30.0)


def step_done(attempt: int = 1, *, step: str = "copy", key: str = "", result: bytes = b"7") -> StepSucceeded:
    """A step of an attempt returned."""
    return StepSucceeded(
        attempt=attempt, step=step, key=key, input_hash="0" * 64, result=msgspec.Raw(result), seconds=0.5
    )


def waits(attempt: int = 1, *, until: datetime | None = DEADLINE - timedelta(hours=1), **changes: Any) -> WaitBegun:
    """The action of an attempt sleeps."""
    return WaitBegun(attempt=attempt, wait="sleep", until=until, **changes)


def handed_back(attempt: int = 1, *, counted: bool, retry_at: datetime = NOW) -> AttemptFailed:
    """The end of an attempt that is followed by another."""
    error = OperationError(code="Throttled", message="try again")
    return AttemptFailed(attempt=attempt, error=error, retry_at=retry_at, counted=counted)


TERMINAL_DATA = (Succeeded, Failed, Canceled)
FAILURE = OperationError(code="ClientOutOfDate", message="update the client", target="version")


# --- strategies -------------------------------------------------------------------------------------------------

operation_ids = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
names = st.from_regex(r"[a-z0-9-]{1,40}", fullmatch=True)
_reserved_since = st.sampled_from(sorted(RESERVED_RESOURCES - ALWAYS_RESERVED))
kinds = st.builds(Kind, names.filter(lambda name: name not in ALWAYS_RESERVED) | _reserved_since, names)
"""As the journal may hold them: an earlier version may have offered an action whose resource is reserved by now."""
routable_kinds = kinds.filter(lambda kind: kind.resource not in RESERVED_RESOURCES)
resource_ids = st.just("") | st.text(
    st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"], exclude_characters="/"), min_size=1, max_size=20
).filter(lambda text: text not in {".", ".."})
instants = st.datetimes(
    min_value=datetime(2020, 1, 1),  # noqa: DTZ001 - Hypothesis adds the zone
    max_value=datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45)), timezone(timedelta(hours=-8))]),
)
texts = st.text(max_size=20)
named = st.text(min_size=1, max_size=20)
seconds = st.floats(min_value=1, max_value=1e9)
codes = texts | st.integers(min_value=-(2**63), max_value=2**64)
errors = st.builds(OperationError, code=codes, message=texts, target=texts)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(texts, children, max_size=3),
    max_leaves=6,
)


@st.composite
def json_documents(draw: st.DrawFn) -> bytes:
    """JSON text of a client or an action, compact or indented, without surrounding space."""
    document = msgspec.json.encode(draw(json_values))
    return msgspec.json.format(document, indent=draw(st.sampled_from([-1, 0, 2])))


raws = json_documents().map(msgspec.Raw)
forced_ends = st.builds(ForcedEnd, sequence=st.integers(1, 9), passed_over=st.integers(0, 3), reason=texts)
payload_refs = st.builds(
    PayloadRef,
    uri=st.builds("payload:{}/{:032x}".format, operation_ids, st.integers(0, 2**128 - 1)),
    size=st.integers(0, MAX_PAYLOAD),
    sha256=st.sampled_from(["0" * 64, "f" * 64]),
)
traces = st.builds(Trace, traceparent=texts, tracestate=texts)


@st.composite
def requests(draw: st.DrawFn) -> Requested:
    """Any request."""
    kind = draw(kinds)
    payload = draw(st.none() | payload_refs)
    upload = st.builds(Attachment, file_name=named, media_type=named, payload=payload_refs)
    uploads: tuple[Attachment, ...] = draw(st.just(()) | st.tuples(upload))
    return Requested(
        uploads=uploads,
        resource=kind.resource,
        action=kind.action,
        resource_id=draw(resource_ids),
        action_version=draw(st.integers(1, 9)),
        input=draw(raws) if payload is None else msgspec.UNSET,
        input_payload=payload,
        request_hash=draw(st.sampled_from(["0" * 64, "f" * 64])),
        deadline=draw(instants),
        retention=draw(seconds),
        retention_failed=draw(st.just(0.0) | seconds),
        retention_canceled=draw(st.just(0.0) | seconds),
        caller=draw(texts),
        client_id=draw(texts),
        client_address=draw(texts),
        trace=draw(st.none() | traces),
    )


signal_names = st.sampled_from(["approval", "payment"])
senders = st.sampled_from(["", "ann", "bob", "cy"])
signal_waits = st.builds(
    SignalWait,
    schema=json_documents().map(msgspec.Raw),
    approvers=st.integers(1, 3),
    not_requester=st.booleans(),
)
wait_events = st.builds(
    WaitBegun,
    attempt=st.integers(1, 99),
    wait=signal_names | named,
    key=texts,
    until=st.none() | instants,
    hold=st.booleans(),
    signal=st.none() | signal_waits,
    refused=st.lists(st.builds(RefusedSignal, position=st.integers(1, 9), reason=texts), max_size=2).map(tuple),
)
signal_events = st.builds(
    Signaled,
    signal=signal_names,
    payload=raws,
    by=senders,
    via=st.sampled_from(["", "url"]),
    request_id=texts,
    request_hash=texts,
)

event_data: st.SearchStrategy[EventData] = st.one_of(
    requests(),
    st.builds(
        Started,
        attempt=st.integers(1, 99),
        runner=texts,
        token=texts,
        ticket=st.integers(1, 2**53),
        lease=seconds,
    ),
    st.builds(Progressed, percent=st.floats(0, 100), message=texts),
    st.builds(StepStarted, attempt=st.integers(1, 99), step=named, key=texts, input_hash=texts),
    st.builds(
        StepSucceeded,
        attempt=st.integers(1, 99),
        step=named,
        key=texts,
        input_hash=texts,
        result=raws,
        seconds=seconds,
        tries=st.integers(1, 99),
    ),
    st.builds(
        StepSucceeded,
        attempt=st.integers(1, 99),
        step=named,
        input_hash=texts,
        result_payload=payload_refs,
        seconds=seconds,
    ),
    st.builds(
        StepFailed,
        attempt=st.integers(1, 99),
        step=named,
        key=texts,
        input_hash=texts,
        error=errors,
        seconds=seconds,
        tries=st.integers(1, 99),
    ),
    wait_events,
    signal_events,
    st.builds(Attached, attempt=st.integers(1, 99), file_name=named, media_type=named, payload=payload_refs),
    st.builds(AttemptFailed, attempt=st.integers(1, 99), error=errors, retry_at=instants, counted=st.booleans()),
    st.builds(CancelRequested, by=texts, reason=texts),
    st.builds(Succeeded, result=raws),
    st.builds(Succeeded, result_payload=payload_refs),
    st.builds(Failed, error=errors, forced=st.none() | forced_ends),
    st.builds(Canceled, by=texts, reason=texts),
)

step_events = st.sampled_from([StepStarted, StepSucceeded, StepFailed]).flatmap(
    lambda type_: event_data.filter(lambda data: type(data) is type_)
)


events: st.SearchStrategy[Event] = st.builds(
    Event,
    id=named,
    source=named,
    operation_id=operation_ids,
    time=instants,
    position=st.integers(1, 2**31 - 1),
    previous_hash=texts,
    data=event_data,
)


@st.composite
def commands(draw: st.DrawFn, history: History) -> Command:
    """A command of the live attempt, of an earlier one, of a client or of an operator.

    Outcomes, and commands that are always refused, are rarer than others, so that histories get long.
    """
    token = st.sampled_from([*history.tokens[-1:] * 4, *history.tokens, "stranger"])
    live = history.operation.live
    tickets = st.sampled_from([*([live.ticket] * 3 if live else []), 1, history.events[-1].sequence])
    likely = ["start", "progress", "step", "attach", "back", "wait"] if live else ["start"] * 5
    choice = draw(st.sampled_from([*likely, *likely, "start", "progress", "back", "cancel", "outcome", "again"]))
    match choice:
        case "start":
            fresh = f"token-{len(history.events)}"
            return StartAttempt(runner=draw(texts), token=fresh, ticket=draw(tickets), lease=draw(seconds))
        case "progress":
            percent = draw(st.integers(0, 100) | st.floats(0, 100))
            return ReportProgress(token=draw(token), percent=percent, message=draw(texts))
        case "step":
            return RecordStep(token=draw(token), data=draw(step_events))
        case "attach":
            name = draw(st.sampled_from(["a.pdf", "b.pdf"]))
            file = Attachment(file_name=name, media_type="application/pdf", payload=draw(payload_refs))
            return AttachFile(token=draw(token), file=file)
        case "back":
            return FailAttempt(
                token=draw(token), error=draw(errors), retry_at=draw(instants), counted=draw(st.booleans())
            )
        case "wait":
            return BeginWait(token=draw(token), data=draw(wait_events))
        case "cancel":
            return RequestCancel(by=draw(texts), reason=draw(texts))
        case "again":
            return RequestAction(requested=draw(requests()))
    return draw(
        st.one_of(
            st.builds(Succeed, token=token, result=json_documents().map(lambda document: document + b"\n")),
            st.builds(Succeed, token=token, result=st.just(b""), payload=payload_refs),
            st.builds(Fail, token=token, error=errors),
            st.builds(ConfirmCancel, token=token),
            st.builds(FailOperation, error=errors),
        )
    )


@st.composite
def histories(draw: st.DrawFn, *, unknown: bool = False, ending: bool = True) -> History:
    """A random walk through `decide`; a refused command adds no event.

    Args:
        draw: Hypothesis.
        unknown: True to insert events of a newer version.
        ending: True if the walk may reach a terminal state.
    """
    history = History(draw(operation_ids), start=draw(instants))
    history.act(RequestAction(requested=draw(requests())), gap=draw(st.integers(1, 3)))
    for _ in range(draw(st.sampled_from([1, 3, 5, 8, 10]))):
        if unknown and not history.operation.is_terminal and draw(st.integers(0, 3)) == 0:
            history.append(FromTheFuture())
            continue
        try:
            data = decide(history.operation, draw(commands(history)))
        except DecisionRefused:
            continue
        if data is not None and (ending or not isinstance(data, TERMINAL_DATA)):
            history.append(data, gap=draw(st.integers(1, 3)))
    return history


@st.composite
def signal_histories(draw: st.DrawFn) -> History:
    """A history of attempts that wait, of signals, and of all that may come between, as its writers would write it.

    A name is waited for until its wait is over, and then never again. What was kept and is refused is among the kept.
    """
    history = History().append(draw(requests().map(lambda one: msgspec.structs.replace(one, caller="ann"))))
    for number in range(draw(st.integers(1, 12))):
        operation = history.operation
        closed = operation.signals.closed if operation.signals is not None else ()
        open_names = [name for name in ("approval", "payment", "note") if name not in closed]
        choice = draw(st.sampled_from(["signal", "signal", "start", "wait", "wait", "sleep", "progress", "back"]))
        live = operation.live
        if choice == "signal" and open_names:
            history.append(msgspec.structs.replace(draw(signal_events), signal=draw(st.sampled_from(open_names))))
        elif choice == "start" or live is None:
            history.append(Started(attempt=operation.attempt + 1, runner="r", token="t", ticket=number + 1, lease=30.0))
        elif choice == "wait" and open_names:
            name = draw(st.sampled_from(open_names))
            kept = operation.signals.of(name) if operation.signals is not None else ()
            refused = tuple(RefusedSignal(position=one.position, reason="") for one in kept if draw(st.booleans()))
            wait = WaitBegun(attempt=live.number, wait=name, signal=draw(signal_waits), refused=refused)
            history.append(wait)
        elif choice == "sleep":
            history.append(waits(live.number))
        elif choice == "back":
            history.append(handed_back(live.number, counted=draw(st.booleans())))
        else:
            history.append(Progressed(percent=1.0))
    return history


@st.composite
def open_histories(draw: st.DrawFn) -> History:
    """A random walk that has not ended."""
    return draw(histories(ending=False))


@st.composite
def running_histories(draw: st.DrawFn) -> History:
    """A random walk to a state with a live attempt."""
    history = draw(open_histories())
    if history.operation.live is None:
        history.act(StartAttempt(runner="r", token="token-live", ticket=draw(st.integers(1, 30)), lease=30.0))
    return history


@st.composite
def ended_histories(draw: st.DrawFn) -> History:
    """A random walk to one of the terminal states."""
    outcome = draw(st.builds(Succeeded, result=raws) | st.builds(Failed, error=errors) | st.just(Canceled()))
    history = draw(running_histories() if isinstance(outcome, Succeeded) else open_histories())
    return history.append(outcome)
