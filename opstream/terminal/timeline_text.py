"""The timeline of an operation as text for people, and as JSON for programs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from opstream_schemas.events import OperationError, ParentRef
from opstream_schemas.operation.state import TERMINAL_STATUSES
from opstream_schemas.payloads.payload_ref import PayloadRef
from opstream_schemas.text import format_count
from opstream_schemas.timeline import CancelRequest, Phase, PhaseKind, Timeline, TimelineAttempt, TimelineSignal

from .console import coloured, printable
from .operation_display import STATUS_COLOURS

NAME_WIDTH: Final = 10
"""Columns of the names of lines."""
Line = tuple[str, str]
"""A name, or nothing, and a text without line breaks."""

_MAX_DOCUMENT_LENGTH: Final = 120
"""Characters above which size and hash are shown instead of input or result."""


def timeline_json(timeline: Timeline, *, is_whole: bool) -> bytes:
    """The timeline as JSON, with the seconds of each kind of phase. See `timeline_lines` for `is_whole`."""
    report: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(timeline, request=None, result=msgspec.UNSET))
    if timeline.request is not None:
        plain = msgspec.structs.replace(timeline.request, input=msgspec.UNSET)
        request: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(plain))
        if isinstance(timeline.request.input, msgspec.Raw):
            request |= _document_members("input", timeline.request.input, is_whole=is_whole)
        report["request"] = request
    if isinstance(timeline.result, msgspec.Raw):
        report |= _document_members("result", timeline.result, is_whole=is_whole)
    report["seconds"] = {kind.value: timeline.seconds(kind) for kind in _kinds(timeline)} | {"total": timeline.total}
    return msgspec.json.encode(report)


def timeline_lines(timeline: Timeline, *, is_whole: bool, has_colour: bool) -> Iterator[Line]:
    """The timeline as lines for people.

    Args:
        timeline: what to print.
        is_whole: print input and result whole, instead of size and SHA-256 if they are long.
        has_colour: whether to colour the lines.
    """
    yield "operation", timeline.id
    status = coloured(timeline.status, STATUS_COLOURS.get(timeline.status), has_colour=has_colour, is_bold=True)
    if timeline.request is None:
        yield "status", f"{status}; its request has expired, or was removed"
    else:
        request = timeline.request
        place = f" of {printable(request.resource_id)!r}" if request.resource_id else ""
        yield "action", f"{request.resource}:{request.action}{place}, version {request.action_version}"
        yield "status", status
        caller = f"{_caller_text(request.caller, request.client_id)}{_address_text(timeline)}"
        if request.own_id:
            yield "known as", request.own_id + (f" to tenant {printable(request.tenant)}" if request.tenant else "")
        if request.parent is not None:
            yield "child of", _parent_text(request.parent)
        yield "asked", f"{_time_text(timeline.requested_at)} {caller}"
        yield from _document_lines("input", request.input, request.input_payload, is_whole=is_whole)
        if request.start_at is not None:
            yield "not before", _time_text(request.start_at)
        yield "deadline", _time_text(request.deadline)
        if request.callback:
            yield "callback", printable(request.callback)
        if request.trace is not None:
            yield "trace", printable(request.trace.traceparent)
    yield "", ""
    attempts = {attempt.number: attempt for attempt in timeline.attempts}
    for phase in timeline.phases if timeline.events else ():
        yield from _phase_lines(phase, attempts.get(phase.attempt), has_colour=has_colour)
    for signal in timeline.signals:
        yield "signal", _signal_text(signal)
    for cancel_request in timeline.wishes:
        yield "stop", f"asked for at {_time_text(cancel_request.at)} {_cancel_text(cancel_request)}"
    yield "", ""
    yield from _outcome_lines(timeline, is_whole=is_whole, has_colour=has_colour)
    sums = ", ".join(f"{kind} {_duration_text(timeline.seconds(kind))}" for kind in _kinds(timeline))
    yield "took", f"{_duration_text(timeline.total)}{'' if timeline.status in TERMINAL_STATUSES else ' so far'}: {sums}"
    yield from _integrity_lines(timeline, has_colour=has_colour)


def _kinds(timeline: Timeline) -> list[PhaseKind]:
    """The kinds of phases that each operation has, and the time before its start time, if there was one."""
    has_start = any(phase.kind is PhaseKind.SCHEDULED for phase in timeline.phases)
    return [kind for kind in PhaseKind if kind is not PhaseKind.SCHEDULED or has_start]


def _phase_lines(phase: Phase, attempt: TimelineAttempt | None, *, has_colour: bool) -> Iterator[Line]:
    took = _duration_text(phase.seconds)
    if phase.kind is PhaseKind.SCHEDULED:
        yield "scheduled", f"{took}, until its start time"
    elif phase.kind is PhaseKind.QUEUED:
        yield "queued", took
    elif phase.kind is PhaseKind.WAITING:
        retry = f", to be tried again at {_time_text(attempt.retry_at)}" if attempt and attempt.retry_at else ""
        if attempt and attempt.waits_for:
            misfits = f"; {format_count(attempt.refused, 'signal')} did not fit" if attempt.refused else ""
            retry = f", for the signal {printable(attempt.waits_for)}{misfits}"
        elif attempt and attempt.child:
            retry = f", for its child {attempt.child}"
        elif attempt and attempt.end == "waits":
            retry = f", as its action asked for, until {_time_text(attempt.retry_at)}" if attempt.retry_at else ""
        yield "waited", f"{took}{retry}"
    elif attempt is None:
        yield "running", f"{took}; the event of its start has expired, or was removed"
    else:
        end = coloured(attempt.end or "still running", _outcome_colour(attempt.end), has_colour=has_colour)
        counted = "" if attempt.counted else ", not counted"
        began = f"began at {_time_text(attempt.started_at)}"
        yield f"attempt {attempt.number}", f"by {printable(attempt.runner)}: {end} after {took}{counted}, {began}"
        if attempt.progress_events:
            times = "time" if attempt.progress_events == 1 else "times"
            last = f"{attempt.percent:.0f} % {printable(attempt.message)}".rstrip()
            yield "", f"progress reported {attempt.progress_events} {times}, the last {last}"
        for step in attempt.steps:
            name = printable(f"{step.name} ({step.key})" if step.key else step.name)
            end = coloured(step.end, _outcome_colour(step.end), has_colour=has_colour)
            took = f" after {_duration_text(step.seconds)}" if step.end != "begun" else ""
            tries = f" in {step.tries} tries" if step.tries > 1 else ""
            if step.children:
                tries = f", {step.children} {'child' if step.children == 1 else 'children'}"
            yield "", f"step {name}: {end}{took}{tries}" + (f", {_error_text(step.error)}" if step.error else "")
        if attempt.error is not None:
            yield "", _error_text(attempt.error)


def _outcome_lines(timeline: Timeline, *, is_whole: bool, has_colour: bool) -> Iterator[Line]:
    if timeline.ended_at is None:
        return
    yield "ended", f"{_time_text(timeline.ended_at)} as {timeline.status}"
    yield from _document_lines("result", timeline.result, timeline.result_payload, is_whole=is_whole)
    if timeline.error is not None:
        yield "error", coloured(_error_text(timeline.error), STATUS_COLOURS.get(timeline.status), has_colour=has_colour)
    if timeline.canceled is not None:
        yield "canceled", _cancel_text(timeline.canceled)
    if timeline.forced is not None:
        reason = f": {printable(timeline.forced.reason)}" if timeline.forced.reason else ""
        skipped = f"{timeline.forced.passed_over} messages were skipped"
        yield "forced", f"by an operator{reason}; {skipped}, the last at sequence {timeline.forced.sequence}"


def _integrity_lines(timeline: Timeline, *, has_colour: bool) -> Iterator[Line]:
    extra = ((timeline.unknown, "of a type that is not known here"), (timeline.late, "after the end"))
    counted = "".join(f", {count} {what}" for count, what in extra if count)
    yield "events", f"{timeline.events}{counted}"
    if timeline.foreign:
        yield "foreign", coloured(f"{timeline.foreign} messages are not events of it", "red", has_colour=has_colour)
    chain = timeline.chain
    if not timeline.events:
        return
    if not chain.is_intact:
        yield "hashes", coloured(f"broken at position {chain.broken_at}: {chain.why}", "red", has_colour=has_colour)
    elif chain.begins_at:
        yield "hashes", f"ok from position {chain.begins_at} on; what was before has expired, or was removed"
    else:
        yield "hashes", "ok: each event carries the hash of the one before it"
    if timeline.skew:
        yield "clocks", f"differ: one was {_duration_text(timeline.skew)} behind, and the difference is not counted"


def _caller_text(caller: str, client_id: str) -> str:
    who = f"by {printable(caller)}" if caller else "by an unnamed caller"
    return f"{who} with {printable(client_id)}" if client_id else who


def _address_text(timeline: Timeline) -> str:
    address = timeline.request.client_address if timeline.request else ""
    return f" from {printable(address)}" if address else ""


def _parent_text(parent: ParentRef) -> str:
    key = f" ({printable(parent.key)})" if parent.key else ""
    place = "" if parent.index is None else f", number {parent.index + 1}"
    known = f", known as {parent.own_id}" if parent.own_id else ""
    return f"{parent.id}{known}, as {printable(parent.name)}{key}{place}"


def _signal_text(signal: TimelineSignal) -> str:
    who = f"by {printable(signal.by)}" if signal.by else "by an unnamed sender"
    return f"{printable(signal.name)} at {_time_text(signal.at)} {'by its URL' if signal.via else who}"


def _cancel_text(request: CancelRequest) -> str:
    who = f"by {printable(request.by)}" if request.by else "by an unnamed caller"
    return f"{who}: {printable(request.reason)}" if request.reason else who


def _error_text(error: OperationError) -> str:
    target = f" ({error.target})" if error.target else ""
    return printable(f"{error.code}: {error.message}{target}")


def _document_lines(
    name: str, document: msgspec.Raw | msgspec.UnsetType, payload: PayloadRef | None, *, is_whole: bool
) -> Iterator[Line]:
    if isinstance(document, msgspec.Raw):
        yield name, _document_text(bytes(document), is_whole=is_whole)
    elif payload is not None:
        yield name, f"{payload.size} bytes in {printable(payload.uri)}, SHA-256 {payload.sha256}"


def _document_text(document: bytes, *, is_whole: bool) -> str:
    text = printable(document.decode(errors="replace"))
    if is_whole or len(text) <= _MAX_DOCUMENT_LENGTH:
        return text
    return f"{len(document)} bytes, SHA-256 {hashlib.sha256(document).hexdigest()}"


def _document_members(name: str, value: msgspec.Raw, *, is_whole: bool) -> dict[str, Any]:
    document = bytes(value)
    if is_whole:
        return {name: msgspec.Raw(document)}
    return {f"{name}Bytes": len(document), f"{name}Hash": hashlib.sha256(document).hexdigest()}


def _time_text(time: datetime | None) -> str:
    if time is None:
        return "an unknown time"
    try:
        return f"{time.astimezone(UTC).isoformat(' ', 'milliseconds')[:-6]} UTC"
    except OverflowError:
        return time.isoformat(" ", "milliseconds")  # it would leave the calendar in UTC


def _duration_text(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 120:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min {rest:02} s" if hours else f"{minutes} min {rest:02} s"


def _outcome_colour(end: str) -> str | None:
    return {"succeeded": "green", "failed": "red", "lost": "red", "canceled": "yellow"}.get(end)
