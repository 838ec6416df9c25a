"""The bodies of requests about schedules, decoded and checked."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from opstream_api.errors import ApiError
from opstream_api.inputs.input_validation import decode_input
from opstream_journal.provisioning.topology import SCHEDULE_LIMIT
from opstream_schemas.errors import ErrorCode, InvalidName
from opstream_schemas.schedules.schedule import EARLIEST_BACKFILL, LONGEST_BACKFILL, Schedule, check_schedule


class BackfillRange(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"begin": "from", "end": "to"}
):
    """The body of a backfill."""

    begin: datetime
    end: datetime


def decode_definition(body: bytes) -> Schedule:
    """Return the schedule in a body.

    Raises:
        ApiError: `InvalidInput`, `PayloadTooLarge`.
    """
    if len(body) > SCHEDULE_LIMIT:
        raise ApiError(ErrorCode.PAYLOAD_TOO_LARGE, f"a schedule has at most {SCHEDULE_LIMIT} bytes")
    document, _ = decode_input(body)
    try:
        return check_schedule(msgspec.json.decode(document, type=Schedule))
    except (msgspec.ValidationError, InvalidName) as error:
        raise ApiError(ErrorCode.INVALID_INPUT, f"no schedule: {error}") from error


def decode_range(body: bytes, now: datetime) -> BackfillRange:
    """Return the time in the body of a backfill.

    Raises:
        ApiError: `InvalidInput`.
    """
    document, _ = decode_input(body)
    try:
        span = msgspec.json.decode(document, type=BackfillRange)
    except msgspec.ValidationError as error:
        raise ApiError(ErrorCode.INVALID_INPUT, f'the body is {{"from": TIME, "to": TIME}}: {error}') from error
    if span.begin.tzinfo is None or span.end.tzinfo is None:
        raise ApiError(ErrorCode.INVALID_INPUT, "from and to need their zone, as in 2026-11-24T08:00:00Z")
    try:
        begin, end = span.begin.astimezone(UTC), span.end.astimezone(UTC)
    except OverflowError as error:
        raise ApiError(ErrorCode.INVALID_INPUT, "from and to must be in the years 1970 to 9999") from error
    if begin < EARLIEST_BACKFILL:
        raise ApiError(ErrorCode.INVALID_INPUT, "from must not be before 1970", target="from")
    if end - begin > LONGEST_BACKFILL:
        message = f"from and to must be at most {LONGEST_BACKFILL.days} days apart: name a shorter time"
        raise ApiError(ErrorCode.INVALID_INPUT, message, target="to")
    if not begin <= end <= now:
        raise ApiError(ErrorCode.INVALID_INPUT, "from must not be after to, and to must have passed", target="to")
    return BackfillRange(begin=begin, end=end)
