"""The waits of one attempt: which names it has used, and what became of the waits of earlier ones."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from opstream_runner.steps.clean_up import CleanUp
from opstream_runner.steps.step_clock import REAL_CLOCK
from opstream_runner.steps.suspension import AttemptSuspended
from opstream_schemas.action_types.text_rules import find_text_rules
from opstream_schemas.errors import InvalidName
from opstream_schemas.events import SignalWait, WaitBegun
from opstream_schemas.names import check_signal_name
from opstream_schemas.signals.wait_history import ClosedWait

from .wait_errors import InvalidWait, WaitTimedOut

MAX_APPROVERS: Final = 20
"""Principals that a wait may ask for."""
MAX_SECONDS: Final = 3_650 * 86_400
"""Seconds that a wait may take. The operation's deadline ends it before."""
MAX_SCHEMA: Final = 64 * 1024
"""Bytes of the JSON Schema of a signal's type."""

_NOTHING: Final[Mapping[str, ClosedWait]] = {}


class WaitTable:
    """The waits of one attempt. Any thread may use it.

    Args:
        closed: the waits that are over, by name.
        is_proven: the operation's requester is known by credentials, and so will be those who send signals.
        now: returns the time with a time zone.
        clean_up: see `StepTable`.
    """

    def __init__(
        self,
        closed: Mapping[str, ClosedWait] = _NOTHING,
        *,
        is_proven: bool = False,
        now: Callable[[], datetime] = REAL_CLOCK.now,
        clean_up: CleanUp | None = None,
    ) -> None:
        self._closed = closed
        self._clean_up = clean_up
        self._is_proven = is_proven
        self._now = now
        self._places: dict[str, str] = {}
        self._lock = threading.Lock()

    def stop(self, name: str) -> None:
        """Cancel a plain handler at a wait that is not over, if it is to clean up.

        Raises:
            ActionCanceledError: it is.
        """
        if self._clean_up is not None and name not in self._closed:
            self._clean_up.stop_here()

    async def stop_async(self, name: str) -> None:
        """Cancel an async handler at a wait that is not over, if it is to clean up.

        Raises:
            asyncio.CancelledError: it is.
        """
        if self._clean_up is not None and name not in self._closed:
            await self._clean_up.stop_here_async()

    def take(
        self,
        name: str,
        model: Any,  # noqa: ANN401 - any type
        schema_of: Callable[[Any], dict[str, Any]],
        *,
        timeout: float | None,
        approvers: int,
        not_requester: bool,
        hold: bool,
        place: str,
    ) -> Any:  # noqa: ANN401 - of the author's type
        """Return what was sent to a wait that is over; a list if it asks for several approvers.

        Args:
            name: of the signal.
            model: the type of its payload.
            schema_of: returns the JSON Schema of a type, or raises ValueError.
            timeout: seconds after which the wait is over without it; None for the operation's deadline.
            approvers: how many different principals have to send it.
            not_requester: whether the one that has requested the operation may not.
            hold: whether the operation keeps its exclusive resource meanwhile.
            place: where in the code, for messages.

        Raises:
            AttemptSuspended: it is not over. The handler has to end.
            WaitTimedOut: it is over, and too few came.
            InvalidWait: an argument is not valid, or the attempt has waited for this name before.
        """
        self._claim(name, place)
        _check(name, timeout, approvers)
        if (approvers > 1 or not_requester) and not self._is_proven:
            raise InvalidWait(
                f"the wait for {name!r} asks who sends the signal, and nobody can prove that here: the operation was "
                "requested without authentication, so start the API with --auth, or leave approvers and not_requester "
                "out"
            )
        closed = self._closed.get(name)
        if closed is None:
            until = None if timeout is None else self._now() + timedelta(seconds=timeout)
            wait = SignalWait(
                schema=_encoded_schema(name, model, schema_of),
                approvers=approvers,
                not_requester=not_requester,
            )
            raise AttemptSuspended(WaitBegun(attempt=0, wait=name, until=until, hold=bool(hold), signal=wait))
        if closed.has_timed_out:
            raise WaitTimedOut(name)
        values = [_decoded(name, payload, model, schema_of) for payload in closed.payloads]
        return values if approvers > 1 else values[0]

    def _claim(self, name: str, place: str) -> None:
        with self._lock:
            before = self._places.setdefault(name, place)
        if before is not place:
            raise InvalidWait(
                f"the attempt waits for {name!r} twice: at {before}, and at {place}: a name is waited for once, so in "
                "a loop put the number into it"
            )


def _check(name: str, timeout: float | None, approvers: int) -> None:
    try:
        check_signal_name(name)
    except (InvalidName, TypeError) as error:
        raise InvalidWait(str(error)) from error
    is_number = type(timeout) in {int, float} and 0 < float(timeout or 0) <= MAX_SECONDS
    if timeout is not None and not (is_number and math.isfinite(timeout)):
        raise InvalidWait(
            f"the wait for {name!r}: timeout must be more than 0 and at most {MAX_SECONDS} seconds, not {timeout!r}"
        )
    if type(approvers) is not int or not 1 <= approvers <= MAX_APPROVERS:
        raise InvalidWait(f"the wait for {name!r}: approvers must be 1 to {MAX_APPROVERS}, not {approvers!r}")


def _encoded_schema(name: str, model: Any, schema_of: Callable[[Any], dict[str, Any]]) -> msgspec.Raw:  # noqa: ANN401
    try:
        encoded = msgspec.json.encode(schema_of(model))
    except ValueError as error:
        raise InvalidWait(f"the type of the signal {name!r} can't be had: {error}") from error
    if len(encoded) > MAX_SCHEMA:
        raise InvalidWait(
            f"the JSON Schema of the signal {name!r} has {len(encoded)} bytes, {MAX_SCHEMA} are allowed: take a "
            "simpler type"
        )
    return msgspec.Raw(encoded)


def _decoded(name: str, payload: msgspec.Raw, model: Any, schema_of: Callable[[Any], dict[str, Any]]) -> Any:  # noqa: ANN401
    try:
        rules = find_text_rules(schema_of(model))
        if rules is not None:
            rules.check_document(payload)
        return msgspec.json.decode(payload, type=model)
    except Exception as error:
        # It fitted the type that the wait had, so the code has changed since, or the type's own code raises.
        raise InvalidWait(
            f"the signal {name!r} is recorded, and not of the type that is waited for now: {error}"
        ) from error
