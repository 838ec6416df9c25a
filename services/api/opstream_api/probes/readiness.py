"""The answer to `/readyz`: the conditions of this process, and whether the journal takes submits now.

All answers have one shape: those of the other services (`conditions`, `counters`), and with 503 also the `error` that
every answer of the API has. A client or a probe that reads `conditions` finds the cause and the next step each time.
"""

from __future__ import annotations

from typing import Final

import msgspec

from opstream_api.errors import ApiError, journal_error
from opstream_api.http.responses import EncodedResponse, error_as_asgi, json_response
from opstream_api.operations.journal_capacity import JournalCapacity
from opstream_journal import JournalError, JournalFull, NotProvisioned
from opstream_journal.missing_leader import AWAY_STEP
from opstream_journal.missing_streams import LOST_JOURNAL_STEP
from opstream_journal.runtime.broker_monitor import STREAM_MISSING
from opstream_journal.runtime.conditions import Condition, Conditions
from opstream_journal.runtime.storage_watch import STORAGE_LIMIT
from opstream_schemas.errors import ErrorCode

_FULL_STEP: Final = "raise the journal's limit: 'opstream provision --update' with a larger --max-bytes"


async def readiness(conditions: Conditions, capacity: JournalCapacity) -> EncodedResponse:
    """Build the answer, in at most 4 seconds.

    Args:
        conditions: of this process. A blocking one is the answer: it has the cause, and a measurement that fails only
            its effect.
        capacity: measured now, if nothing is known to block.
    """
    if _is_blocked(conditions):
        return _refusal(conditions)
    try:
        await capacity.ensure_ready()
    except JournalError as error:
        refused = journal_error(error)
        if _is_blocked(conditions):  # one has begun meanwhile
            return _refusal(conditions)
        if isinstance(error, NotProvisioned):  # of the journal, which the monitor reports at its next look
            return _refusal(conditions, _missing(error))
        step = _FULL_STEP if isinstance(error, JournalFull) else AWAY_STEP
        shown = Condition(name=str(refused.code), message=refused.body.error.message, next_step=step, is_blocking=True)
        return _refusal(conditions, shown, refused)
    return json_response(msgspec.json.encode({"status": "ready", **conditions.members()}))


def _is_blocked(conditions: Conditions) -> bool:
    """Return `is_blocked`, which changes while a measurement is awaited."""
    return conditions.is_blocked


def _missing(error: NotProvisioned) -> Condition:
    return Condition(name=STREAM_MISSING, message=str(error), next_step=LOST_JOURNAL_STEP, is_blocking=True)


def _refusal(conditions: Conditions, found: Condition | None = None, error: ApiError | None = None) -> EncodedResponse:
    """Build a 503. `found` is what was found just now and is not among the conditions yet."""
    named = found.name if found is not None else ""
    shown = [*(one for one in conditions.current if one.name != named), *([found] if found is not None else [])]
    cause = next(one for one in shown if one.is_blocking)
    if error is None:
        message = f"{cause.message}; next step: {cause.next_step}"
        code = ErrorCode.JOURNAL_FULL if cause.name == STORAGE_LIMIT else ErrorCode.JOURNAL_UNAVAILABLE
        error = ApiError(code, message, target=cause.name)
    members = {"status": "not ready", **conditions.members(), "conditions": shown}
    return error_as_asgi(error, members)
