"""The archive's subjects, and where an event there came from."""

from __future__ import annotations

import pytest

from opstream_schemas.errors import InvalidName
from opstream_schemas.names import Kind
from opstream_schemas.subjects import (
    ArchiveOrigin,
    ArchiveSubject,
    archive_filter,
    archive_subject,
    parse_archive_origin,
    parse_archive_subject,
)

pytestmark = pytest.mark.unit

KIND = Kind("book", "upload-start")
HEADER = (
    "OPERATIONS 17 operations.*.*.*.* archive.{{wildcard(2)}}.{{wildcard(3)}}.{{wildcard(4)}} "
    "operations.op-1.book.upload-start.succeeded 35jE3jHt"
)


def test_a_subject_is_parsed_as_it_was_built() -> None:
    """Action and event type are in it, the operation is not."""
    subject = archive_subject(KIND, "attempt-failed")

    assert subject == "archive.book.upload-start.attempt-failed"
    assert parse_archive_subject(subject) == ArchiveSubject(KIND, "attempt-failed")


def test_filters() -> None:
    """What is left out may be anything."""
    assert archive_filter() == "archive.*.*.*"
    assert archive_filter(resource="book", event="failed") == "archive.book.*.failed"


@pytest.mark.parametrize(
    "subject", ["", "archive", "archive.book.up", "archive.book.up.requested.x", "operations.a.b.c.d", "archive.B.c.d"]
)
def test_other_subjects_are_refused(subject: str) -> None:
    """They are none of the archive."""
    with pytest.raises(InvalidName):
        parse_archive_subject(subject)


def test_an_origin_is_parsed() -> None:
    """The sequence in the journal, and the subject there."""
    assert parse_archive_origin(HEADER) == ArchiveOrigin(17, "operations.op-1.book.upload-start.succeeded")
    assert parse_archive_origin(HEADER.rpartition(" ")[0]) == parse_archive_origin(HEADER)


@pytest.mark.parametrize(
    "header", ["", "OPERATIONS 17", "OPERATIONS x a b c", "OPERATIONS -1 a b c", "OPERATIONS ² a b c", "TIMERS 1 a b c"]
)
def test_other_origins_are_refused(header: str) -> None:
    """They do not lead to an event of the journal."""
    with pytest.raises(InvalidName):
        parse_archive_origin(header)
