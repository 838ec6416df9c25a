"""What `opstream provision` asks for, by what was said and what is there."""

from __future__ import annotations

from typing import Any

import click
import pytest

from opstream.cli.commands.provision import Settings, archive_wanted, sizing_wanted
from opstream_journal.provisioning.archive import Archive
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas.action_spec import DAY
from tests.support.api import spec

pytestmark = pytest.mark.unit

LONG = spec(retention=7 * DAY, retention_failed=90 * DAY)


def settings(**given: Any) -> Settings:
    nothing = ("replicas", "max_age", "max_bytes", "max_msg_size", "max_body", "max_result", "archive_max_age")
    fields: dict[str, Any] = dict.fromkeys(nothing) | {
        "servers": (),
        "connect_timeout": 1.0,
        "modules": (),
        "is_update": False,
        "is_archiving": False,
    }
    return Settings(**(fields | given))


@pytest.mark.parametrize(
    ("given", "current", "wanted"),
    [
        (None, 30 * DAY, 92 * DAY),
        (None, 200 * DAY, 200 * DAY),
        (None, 0.0, 0.0),
        (30 * DAY, 30 * DAY, 30 * DAY),
        (0.0, 30 * DAY, 0.0),
    ],
)
def test_the_journal_becomes_as_old_as_its_actions_need(given: float | None, current: float, wanted: float) -> None:
    """Unless somebody says how old: what is too little then is refused, not changed."""
    sizing = sizing_wanted(settings(max_age=given), Sizing(max_age=current), [LONG])

    assert sizing == Sizing(max_age=wanted)


@pytest.mark.parametrize(
    ("given", "current", "wanted"),
    [
        ({}, None, None),
        ({"is_archiving": True}, None, Archive()),
        ({"is_archiving": True, "archive_max_age": 9.0}, None, Archive(max_age=9.0)),
        ({}, Archive(max_age=5.0), Archive(max_age=5.0)),
        ({"archive_max_age": 0.0}, Archive(max_age=5.0), Archive()),
    ],
)
def test_an_archive_is_made_when_asked_for_and_kept_then(
    given: dict[str, Any], current: Archive | None, wanted: Archive | None
) -> None:
    """Its age stays as it is unless another one is asked for."""
    assert archive_wanted(settings(**given), current) == wanted


def test_an_age_without_an_archive_is_refused() -> None:
    """There is nothing that it could be the age of."""
    with pytest.raises(click.UsageError, match="add --archive to make it"):
        archive_wanted(settings(archive_max_age=9.0), None)
