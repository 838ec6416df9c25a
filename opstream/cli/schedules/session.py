"""A session with the service for one command about schedules, and the parts of a target."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from opstream.cli.client_session import RESPONSE_TIMEOUT, client_session, first_response
from opstream.cli.options import client as client_options
from opstream.cli.options.option import F
from opstream_schemas.names import Kind

if TYPE_CHECKING:
    from opstream.client.schedules.calls import ScheduleCalls


class ServiceSettings(client_options.TokenSettings, frozen=True, kw_only=True):
    """Where the service is, and the credentials for it."""

    url: str


def service_options(command: F) -> F:
    """Add the options of `ServiceSettings`."""
    decorated: F = client_options.url_option(client_options.token_options(command))
    return decorated


@contextlib.contextmanager
def schedule_calls(settings: ServiceSettings) -> Iterator[tuple[ScheduleCalls, float]]:
    """The calls about schedules, and the seconds that each has.

    Raises:
        CommandError: as `client_session` and `first_response`.
    """
    with (
        client_session(settings.url, token=client_options.token_of(settings)) as (client, _),
        first_response(settings.url, RESPONSE_TIMEOUT) as seconds,
    ):
        yield client.schedules, seconds


def parts_of_target(target: str) -> tuple[str, str]:
    """Return the action and the resource id of a target, as `opstream run` takes it.

    Raises:
        click.UsageError: it is none.
    """
    from opstream.client.errors import InvalidRequest
    from opstream.client.urls import ServiceUrls

    try:
        ServiceUrls(client_options.DEFAULT_URL).action(target)
    except InvalidRequest as error:
        raise click.UsageError(str(error)) from error
    resource, slash, rest = target.removeprefix("/").partition("/")
    resource_id, _, action = rest.rpartition(":")
    return (str(Kind(resource, action)), resource_id) if slash else (resource, "")
