"""An operation's life as text for a person, and as JSON for a machine. Called by `auditing`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from opstream_schemas.events import OperationError
from opstream_schemas.operation.state import TERMINAL_STATUSES
from opstream_schemas.timeline import CancelRequest, Phase, PhaseKind, Timeline, TimelineAttempt

from .console import coloured, printable
from .operation_display import STATUS_COLOURS

NAME_WIDTH: Final = 10
"""Columns of a name."""
_MAX_DOCUMENT_LENGTH: Final = 120
Line = tuple[str, str]

_KINDS: Final = (PhaseKind.QUEUED, PhaseKind.RUNNING, PhaseKind.WAITING)


def timeline_json(told: Timeline, *, is_whole: bool) -> bytes:
    """JSON: everything, and the seconds of each kind of phase; input and result whole, or their size and SHA-256."""
    report: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(told, request=None, result=msgspec.UNSET))
    if told.request is not None:
        plain = msgspec.structs.replace(told.request, input=msgspec.Raw(b"null"))
        request: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(plain))
        del request["input"]
        report["request"] = request | _document_members("input", told.request.input, is_whole=is_whole)
    if isinstance(told.result, msgspec.Raw):
        report |= _document_members("result", told.result, is_whole=is_whole)
    report["seconds"] = {kind.value: told.seconds(kind) for kind in _KINDS} | {"total": told.total}
    return msgspec.json.encode(report)


def timeline_lines(told: Timeline, *, is_whole: bool, is_on: bool) -> Iterator[Line]:
    """Names and what there is to say under them, without line breaks; `is_on` for colours."""
    yield "operation", told.id
    status = coloured(told.status, STATUS_COLOURS.get(told.status), is_on=is_on, is_bold=True)
    if told.request is None:
        yield "status", f"{status}; its request is not there any more"
    else:
        request = told.request
        place = f" of {printable(request.resource_id)!r}" if request.resource_id else ""
        yield "action", f"{request.resource}:{request.action}{place}, version {request.action_version}"
        yield "status", status
        yield (
            "asked",
            f"{_time_text(told.requested_at)} {_caller_text(request.caller, request.client_id)}{_address_text(told)}",
        )
        yield "input", _document_text(bytes(request.input), is_whole=is_whole)
        yield "deadline", _time_text(request.deadline)
        if request.callback:
            yield "callback", printable(request.callback)
        if request.trace is not None:
            yield "trace", printable(request.trace.traceparent)
    yield "", ""
    attempts = {attempt.number: attempt for attempt in told.attempts}
    for phase in told.phases if told.events else ():
        yield from _phase_lines(phase, attempts.get(phase.attempt), is_on=is_on)
    for wish in told.wishes:
        yield "stop", f"asked for at {_time_text(wish.at)} {_cancel_text(wish)}"
    yield "", ""
    yield from _outcome_lines(told, is_whole=is_whole, is_on=is_on)
    sums = ", ".join(f"{kind} {_duration_text(told.seconds(kind))}" for kind in _KINDS)
    yield "took", f"{_duration_text(told.total)}{'' if told.status in TERMINAL_STATUSES else ' so far'}: {sums}"
    yield from _integrity_lines(told, is_on=is_on)


def _phase_lines(phase: Phase, attempt: TimelineAttempt | None, *, is_on: bool) -> Iterator[Line]:
    took = _duration_text(phase.seconds)
    if phase.kind is PhaseKind.QUEUED:
        yield "queued", took
    elif phase.kind is PhaseKind.WAITING:
        retry = f", to be tried again at {_time_text(attempt.retry_at)}" if attempt and attempt.retry_at else ""
        yield "waited", f"{took}{retry}"
    elif attempt is None:
        yield "running", f"{took}; who ran it is not there any more"
    else:
        end = coloured(attempt.end or "still running", _outcome_colour(attempt.end), is_on=is_on)
        counted = "" if attempt.counted else ", not counted"
        began = f"began at {_time_text(attempt.started_at)}"
        yield f"attempt {attempt.number}", f"by {printable(attempt.runner)}: {end} after {took}{counted}, {began}"
        if attempt.progress_events:
            told = "time" if attempt.progress_events == 1 else "times"
            last = f"{attempt.percent:.0f} % {printable(attempt.message)}".rstrip()
            yield "", f"progress told {attempt.progress_events} {told}, at last {last}"
        if attempt.error is not None:
            yield "", _error_text(attempt.error)


def _outcome_lines(told: Timeline, *, is_whole: bool, is_on: bool) -> Iterator[Line]:
    if told.ended_at is None:
        return
    yield "ended", f"{_time_text(told.ended_at)} as {told.status}"
    if isinstance(told.result, msgspec.Raw):
        yield "result", _document_text(bytes(told.result), is_whole=is_whole)
    if told.error is not None:
        yield "error", coloured(_error_text(told.error), STATUS_COLOURS.get(told.status), is_on=is_on)
    if told.canceled is not None:
        yield "canceled", _cancel_text(told.canceled)
    if told.forced is not None:
        reason = f": {printable(told.forced.reason)}" if told.forced.reason else ""
        passed = f"{told.forced.passed_over} messages were passed over"
        yield "forced", f"by an operator{reason}; {passed}, the last at sequence {told.forced.sequence}"


def _integrity_lines(told: Timeline, *, is_on: bool) -> Iterator[Line]:
    extra = ((told.unknown, "of a type that is not known here"), (told.late, "behind the end"))
    counted = "".join(f", {count} {what}" for count, what in extra if count)
    yield "events", f"{told.events}{counted}"
    if told.foreign:
        yield "foreign", coloured(f"{told.foreign} messages are no events of it", "red", is_on=is_on)
    chain = told.chain
    if not told.events:
        return
    if not chain.is_intact:
        yield "hashes", coloured(f"broken at position {chain.broken_at}: {chain.why}", "red", is_on=is_on)
    elif chain.begins_at:
        yield "hashes", f"ok from position {chain.begins_at} on; what was before has expired, or was removed"
    else:
        yield "hashes", "ok: each event carries the hash of the one before it"
    if told.skew:
        yield "clocks", f"differ: one was {_duration_text(told.skew)} behind, which counts as no time"


def _caller_text(caller: str, client_id: str) -> str:
    who = f"by {printable(caller)}" if caller else "by an unnamed caller"
    return f"{who} with {printable(client_id)}" if client_id else who


def _address_text(told: Timeline) -> str:
    address = told.request.client_address if told.request else ""
    return f" from {printable(address)}" if address else ""


def _cancel_text(wish: CancelRequest) -> str:
    who = f"by {printable(wish.by)}" if wish.by else "by an unnamed caller"
    return f"{who}: {printable(wish.reason)}" if wish.reason else who


def _error_text(error: OperationError) -> str:
    target = f" ({error.target})" if error.target else ""
    return printable(f"{error.code}: {error.message}{target}")


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
        return time.isoformat(" ", "milliseconds")  # a foreign one, at the end of the calendar


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
