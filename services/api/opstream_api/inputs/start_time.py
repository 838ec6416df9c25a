"""Whether an operation may begin at the time that its request names. Pure."""

from __future__ import annotations

from datetime import datetime

from opstream_api.errors import ApiError
from opstream_api.http.submit_request import MAX_START_DELAY, START_AT
from opstream_journal.provisioning.topology import AGE_MARGIN
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.errors import ErrorCode


def check_start(spec: ActionSpec, start_at: datetime, now: datetime, *, kept: float) -> None:
    """Refuse a start time that is too far away: the journal must keep the request until all is over.

    Args:
        spec: the action.
        start_at: the time.
        now: the present one.
        kept: seconds for which the journal keeps events.

    Raises:
        ApiError: `InvalidHeader`.
    """
    longest = min(MAX_START_DELAY, kept - spec.policy.deadline - spec.policy.longest_retention - AGE_MARGIN)
    seconds = (start_at - now).total_seconds()
    if -MAX_START_DELAY <= seconds <= longest:
        return
    if seconds < 0:
        message = f"{start_at.isoformat()} is more than {MAX_START_DELAY} s ago: check the year"
    else:
        message = (
            f"the operation would begin in {seconds:.0f} s, and {spec.kind} can begin in {max(0.0, longest):.0f} s "
            "at most: submit it later, or let the operator keep the journal for longer (--max-age)"
        )
    raise ApiError(ErrorCode.INVALID_HEADER, message, target=START_AT)
