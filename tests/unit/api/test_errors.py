"""The HTTP status of each error code, and the translation of journal errors."""

from __future__ import annotations

import msgspec
import pytest

from opstream_api.errors import MESSAGE_LIMIT, RETRY_AFTER, STATUS_OF, ApiError, journal_error, too_many_requests
from opstream_api.http.responses import error_response
from opstream_journal import BrokerRefused, EventTooLarge, JournalError, JournalFull, JournalUnavailable
from opstream_schemas.errors import ErrorCode
from opstream_schemas.logs.access_log import DenialReason
from opstream_schemas.status_monitor import ErrorBody

pytestmark = pytest.mark.unit

IN_MONITORS_ONLY = {
    ErrorCode.RESULT_TOO_LARGE,
    ErrorCode.INVALID_RESULT,
    ErrorCode.DEADLINE_EXCEEDED,
    ErrorCode.RUNNER_LOST,
    ErrorCode.RUNNER_STOPPED,
    ErrorCode.ATTEMPT_TIMED_OUT,
    ErrorCode.FAILED_BY_OPERATOR,
    ErrorCode.INVALID_STEP,
    ErrorCode.STEP_INPUT_CHANGED,
    ErrorCode.STEP_INTERRUPTED,
    ErrorCode.STEP_RESULT_TOO_LARGE,
    ErrorCode.INVALID_WAIT,
    ErrorCode.WAIT_TIMED_OUT,
    ErrorCode.CHILD_FAILED,
    ErrorCode.CHILD_REFUSED,
}


def test_every_code_of_a_response_has_a_status() -> None:
    """Each code has an HTTP status, or appears only in a status monitor."""
    assert set(STATUS_OF) | IN_MONITORS_ONLY == set(ErrorCode)
    assert not set(STATUS_OF) & IN_MONITORS_ONLY


@pytest.mark.parametrize("code", STATUS_OF)
def test_an_error_response_has_the_contracts_shape(code: ErrorCode) -> None:
    """Status, body and headers agree."""
    answer = error_response(ApiError(code, "because", target="there"))
    error = msgspec.json.decode(answer.content, type=ErrorBody).error
    assert (answer.status_code, answer.media_type) == (STATUS_OF[code], "application/json")
    assert (error.code, error.message, error.target) == (code, "because", "there")
    assert answer.headers["x-ms-error-code"] == code
    assert answer.headers.get("Retry-After") == (str(RETRY_AFTER[code]) if code in RETRY_AFTER else None)


def test_a_503_can_always_be_retried() -> None:
    """It has `Retry-After`, and so has a caller's limit, which may say another time."""
    assert {code for code, status in STATUS_OF.items() if status in {429, 503}} == set(RETRY_AFTER)
    assert too_many_requests("", 6.2, DenialReason.TOO_MANY_OPEN).headers["Retry-After"] == "7"
    assert too_many_requests("", 0.01, DenialReason.TOO_MANY_OPEN).headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (JournalUnavailable("secret", maybe_stored=True), ErrorCode.JOURNAL_UNAVAILABLE),
        (BrokerRefused(404, 10059, "secret"), ErrorCode.JOURNAL_UNAVAILABLE),
        (JournalError("secret"), ErrorCode.JOURNAL_UNAVAILABLE),
        (JournalFull("secret"), ErrorCode.JOURNAL_FULL),
        (EventTooLarge("secret"), ErrorCode.PAYLOAD_TOO_LARGE),
    ],
)
def test_journal_errors_say_nothing_of_the_broker(error: JournalError, code: ErrorCode) -> None:
    """The text of the journal's error goes only to the log; the error of a submit names the operation id."""
    translated = journal_error(error, operation_id="my-id")
    assert translated.code is code
    assert "secret" not in translated.body.error.message
    assert translated.body.error.operation_id == ("" if code is ErrorCode.PAYLOAD_TOO_LARGE else "my-id")


def test_messages_are_bounded() -> None:
    """A quoted part of the request is truncated."""
    assert len(ApiError(ErrorCode.NOT_FOUND, "ü" * 10_000).body.error.message.encode()) <= MESSAGE_LIMIT
