"""The sizing and the archive that `opstream provision` requests, by its options and what exists."""

from __future__ import annotations

from typing import Any

import click
import pytest

from opstream.cli.commands.provision import ProvisionSettings, requested_archive, requested_sizing
from opstream_journal.provisioning.archive import ArchiveSizing
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas.action_spec import DAY_SECONDS
from tests.support.api.service import spec

pytestmark = pytest.mark.unit

LONG = spec(retention=7 * DAY_SECONDS, retention_failed=90 * DAY_SECONDS)


def settings(**given: Any) -> ProvisionSettings:
    nothing = ("replicas", "max_age", "max_bytes", "max_msg_size", "max_body", "max_result", "archive_max_age")
    fields: dict[str, Any] = dict.fromkeys(nothing) | {
        "servers": (),
        "connect_timeout": 1.0,
        "modules": (),
        "is_update": False,
        "is_archiving": False,
    }
    return ProvisionSettings(**(fields | given))


@pytest.mark.parametrize(
    ("given", "current", "wanted"),
    [
        (None, 30 * DAY_SECONDS, 92 * DAY_SECONDS),
        (None, 200 * DAY_SECONDS, 200 * DAY_SECONDS),
        (None, 0.0, 0.0),
        (30 * DAY_SECONDS, 30 * DAY_SECONDS, 30 * DAY_SECONDS),
        (0.0, 30 * DAY_SECONDS, 0.0),
    ],
)
def test_the_age_limit_covers_the_actions(given: float | None, current: float, wanted: float) -> None:
    """A limit that is given is not changed, even if it is too low: it is refused later."""
    sizing = requested_sizing(settings(max_age=given), Sizing(max_age=current), [LONG])

    assert sizing == Sizing(max_age=wanted)


@pytest.mark.parametrize(
    ("given", "current", "wanted"),
    [
        ({}, None, None),
        ({"is_archiving": True}, None, ArchiveSizing()),
        ({"is_archiving": True, "archive_max_age": 9.0}, None, ArchiveSizing(max_age=9.0)),
        ({}, ArchiveSizing(max_age=5.0), ArchiveSizing(max_age=5.0)),
        ({"archive_max_age": 0.0}, ArchiveSizing(max_age=5.0), ArchiveSizing()),
    ],
)
def test_an_archive_is_made_on_request_and_stays(
    given: dict[str, Any], current: ArchiveSizing | None, wanted: ArchiveSizing | None
) -> None:
    """Its age limit stays as it is unless another one is requested."""
    assert requested_archive(settings(**given), current) == wanted


def test_an_age_without_an_archive_is_refused() -> None:
    """An age limit needs an archive."""
    with pytest.raises(click.UsageError, match="add --archive to make it"):
        requested_archive(settings(archive_max_age=9.0), None)
