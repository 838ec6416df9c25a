"""The archive's subjects, and the origin of an event there."""

from __future__ import annotations

import pytest

from opstream_schemas.errors import InvalidName
from opstream_schemas.integrity.archive_subjects import (
    ArchiveOrigin,
    ArchiveSubject,
    archive_filter,
    archive_subject,
    parse_archive_origin,
    parse_archive_subject,
)
from opstream_schemas.names import Kind

pytestmark = pytest.mark.unit

KIND = Kind("book", "upload-start")
HEADER = (
    "OPERATIONS 17 operations.*.*.*.* archive.{{wildcard(2)}}.{{wildcard(3)}}.{{wildcard(4)}} "
    "operations.op-1.book.upload-start.succeeded 35jE3jHt"
)


def test_a_subject_is_parsed_as_it_was_built() -> None:
    """A subject has the action and the event type, and no operation id."""
    subject = archive_subject(KIND, "attempt-failed")

    assert subject == "archive.book.upload-start.attempt-failed"
    assert parse_archive_subject(subject) == ArchiveSubject(KIND, "attempt-failed")


def test_filters() -> None:
    """A part that is left out matches any value."""
    assert archive_filter() == "archive.*.*.*"
    assert archive_filter(resource="book", event="failed") == "archive.book.*.failed"


@pytest.mark.parametrize(
    "subject", ["", "archive", "archive.book.up", "archive.book.up.requested.x", "operations.a.b.c.d", "archive.B.c.d"]
)
def test_other_subjects_are_refused(subject: str) -> None:
    """A subject that is not the archive's raises an error."""
    with pytest.raises(InvalidName):
        parse_archive_subject(subject)


def test_an_origin_is_parsed() -> None:
    """An origin has the sequence and the subject in the journal."""
    assert parse_archive_origin(HEADER) == ArchiveOrigin(17, "operations.op-1.book.upload-start.succeeded")
    assert parse_archive_origin(HEADER.rpartition(" ")[0]) == parse_archive_origin(HEADER)


@pytest.mark.parametrize(
    "header", ["", "OPERATIONS 17", "OPERATIONS x a b c", "OPERATIONS -1 a b c", "OPERATIONS ² a b c", "TIMERS 1 a b c"]
)
def test_other_origins_are_refused(header: str) -> None:
    """A header that does not name a message of the journal raises an error."""
    with pytest.raises(InvalidName):
        parse_archive_origin(header)
