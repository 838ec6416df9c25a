"""`opstream schedule`: makes, shows and changes schedules, and has operations of them begin."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import click
import msgspec

from opstream.cli.client_session import RESPONSE_TIMEOUT, client_session, first_response, print_json
from opstream.cli.options import client as client_options
from opstream.cli.options.option import Decorator, checked, option
from opstream.cli.options.value_types import Duration, Moment, MomentType, resolve_moment
from opstream.cli.schedules.output import (
    is_plain,
    print_lines,
    print_moments,
    print_occurrences,
    print_schedule,
    print_schedules,
)
from opstream.cli.schedules.session import ServiceSettings, parts_of_target, schedule_calls, service_options
from opstream_schemas.errors import InvalidName


def _check_name(text: str) -> str:
    from opstream_schemas.schedules.schedule import check_schedule_name

    return check_schedule_name(text)


def _check_cron(text: str) -> str:
    from opstream_schemas.schedules.occurrences import check_cron

    try:
        return check_cron(text) if text else ""
    except InvalidName as error:
        raise InvalidName(f"{error}: write five fields, e.g. '30 3 * * 1-5'") from error


def _check_zone(text: str) -> str:
    from opstream_schemas.schedules.occurrences import check_zone

    return check_zone(text)


_name_argument: Final[Decorator[Any]] = click.argument("name", metavar="NAME", callback=checked(_check_name))
_json_option: Final[Decorator[Any]] = option(
    "--json", "is_json", variable="JSON", is_flag=True, help="One JSON object per line, also on a terminal."
)


@click.group
def schedule() -> None:
    """Make, show and change schedules, by which an action begins again and again (docs/schedules.md).

    A schedule is its caller's, and stops with the key with which it was set.

    \b
    Example:
      opstream schedule put nightly book:reindex --cron '30 3 * * 1-5' --time-zone Europe/Berlin
      opstream schedule preview nightly
      opstream schedule pause nightly
    """


@schedule.command
@_name_argument
@click.argument("target", metavar="TARGET")
@option(
    "--cron",
    variable="CRON",
    default="",
    metavar="EXPRESSION",
    callback=checked(_check_cron),
    help="When: minute, hour, day of month, month and day of week, e.g. '30 3 * * 1-5'.",
)
@option(
    "--time-zone",
    variable="TIME_ZONE",
    default="UTC",
    metavar="ZONE",
    callback=checked(_check_zone),
    help="Of --cron: a name of the IANA database, e.g. Europe/Berlin.",
)
@option(
    "--every",
    variable="EVERY",
    type=Duration(is_positive=True),
    help="When, in place of --cron: an interval, e.g. 15m; a minute at least, whole seconds count.",
)
@client_options.input_option
@option(
    "--pause-on-failure",
    variable="PAUSE_ON_FAILURE",
    is_flag=True,
    help="Pause it once an operation of it has failed.",
)
@option("--paused", variable="PAUSED", is_flag=True, help="Nothing begins until it is resumed.")
@service_options
def put(
    *,
    name: str,
    target: str,
    cron: str,
    time_zone: str,
    every: float | None,
    action_input: bytes,
    pause_on_failure: bool,
    paused: bool,
    **service: Any,  # noqa: ANN401 - the options above
) -> None:
    """Make the schedule NAME, or change it: it has TARGET (book/42:upload-start or book:reindex) begin again and again.

    It is printed as JSON. What is due from now on counts. A paused one goes on, unless --paused says otherwise.

    \b
    Example:
      opstream schedule put nightly book:reindex --cron '30 3 * * 1-5' --time-zone Europe/Berlin
      opstream schedule put pulse shop:poll --every 15m --input '{"deep": true}'
    """
    if bool(cron) == bool(every):
        raise click.UsageError("it needs either --cron or --every, e.g. --cron '30 3 * * *' or --every 15m")
    action, resource_id = parts_of_target(target)
    definition: dict[str, Any] = {"action": action, "input": msgspec.Raw(action_input)}
    definition |= {"cron": cron, "timeZone": time_zone} if cron else {"every": int(every or 0)}
    more = {"resourceId": resource_id, "pauseOnFailure": pause_on_failure, "paused": paused}
    definition |= {member: value for member, value in more.items() if value}
    with schedule_calls(ServiceSettings(**service)) as (calls, seconds):
        print_schedule(calls.set(name, definition, timeout=seconds))


@schedule.command
@_name_argument
@service_options
def get(*, name: str, **service: Any) -> None:  # noqa: ANN401 - the options above
    """Print the schedule NAME as JSON: when it is due next, and what became of its last moment.

    \b
    Example:
      opstream schedule get nightly | jq -r .nextAt
    """
    with schedule_calls(ServiceSettings(**service)) as (calls, seconds):
        print_schedule(calls.get(name, timeout=seconds))


@schedule.command(name="list")
@_json_option
@service_options
def list_schedules(*, is_json: bool, **service: Any) -> None:  # noqa: ANN401 - the options above
    """Show the schedules: when each is due next, and what it begins.

    A table on a terminal, otherwise one JSON object per line.

    \b
    Example:
      opstream schedule list --json | jq -r 'select(.status == "Paused").name'
    """
    with schedule_calls(ServiceSettings(**service)) as (calls, seconds):
        found = calls.list(timeout=seconds)
    if not found:
        click.echo("opstream: there are no schedules: 'opstream schedule put' makes one", err=True)
        return
    if is_plain(is_json=is_json):
        print_lines(found)
    else:
        print_schedules(found)


@schedule.command
@_name_argument
@service_options
def delete(*, name: str, **service: Any) -> None:  # noqa: ANN401 - the options above
    """Delete the schedule NAME. What it has begun goes on.

    \b
    Example:
      opstream schedule delete nightly
    """
    with schedule_calls(ServiceSettings(**service)) as (calls, seconds):
        calls.delete(name, timeout=seconds)
    click.echo(f"opstream: the schedule {name} is deleted; what it has begun goes on", err=True)


@schedule.command
@_name_argument
@service_options
def pause(*, name: str, **service: Any) -> None:  # noqa: ANN401 - the options above
    """Pause the schedule NAME: nothing of it begins until it is resumed. Print it as JSON.

    \b
    Example:
      opstream schedule pause nightly
    """
    with schedule_calls(ServiceSettings(**service)) as (calls, seconds):
        print_schedule(calls.pause(name, timeout=seconds))


@schedule.command
@_name_argument
@service_options
def resume(*, name: str, **service: Any) -> None:  # noqa: ANN401 - the options above
    """Have the schedule NAME go on, and print it as JSON. What was due meanwhile is left out: see backfill.

    \b
    Example:
      opstream schedule resume nightly
    """
    with schedule_calls(ServiceSettings(**service)) as (calls, seconds):
        print_schedule(calls.resume(name, timeout=seconds))


@schedule.command
@_name_argument
@option(
    "--limit",
    variable="LIMIT",
    type=click.IntRange(1, 100),
    default=10,
    metavar="N",
    help="Show at most so many moments.",
)
@_json_option
@service_options
def preview(*, name: str, limit: int, is_json: bool, **service: Any) -> None:  # noqa: ANN401 - the options above
    """Show when the schedule NAME is due next, whether it is paused or not.

    A table on a terminal, with the wall time of its zone; otherwise one JSON object per line.

    \b
    Example:
      opstream schedule preview nightly --limit 3
    """
    with schedule_calls(ServiceSettings(**service)) as (calls, seconds):
        moments = calls.preview(name, limit, timeout=seconds)
        zone = "" if is_plain(is_json=is_json) else calls.get(name, timeout=seconds).time_zone
    if not moments:
        click.echo(f"opstream: the schedule {name} is never due again", err=True)
        return
    if is_plain(is_json=is_json):
        print_lines({"dueAt": moment} for moment in moments)
    else:
        print_moments(moments, zone)


@schedule.command
@_name_argument
@_json_option
@service_options
def history(*, name: str, is_json: bool, **service: Any) -> None:  # noqa: ANN401 - the options above
    """Show what became of the moments of the schedule NAME, oldest first, as far as it is kept.

    A table on a terminal, otherwise one JSON object per line.

    \b
    Example:
      opstream schedule history nightly | jq -r 'select(.outcome == "refused").detail'
    """
    with schedule_calls(ServiceSettings(**service)) as (calls, seconds):
        found = calls.history(name, timeout=seconds)
    if not found:
        click.echo(f"opstream: no moment of the schedule {name} has come yet", err=True)
        return
    if is_plain(is_json=is_json):
        print_lines(found)
    else:
        print_occurrences(found)


@schedule.command
@_name_argument
@client_options.wait_option
@client_options.timeout_option
@service_options
def trigger(*, name: str, is_waiting: bool, timeout: float | None, **service: Any) -> None:  # noqa: ANN401 - as above
    """Have an operation of the schedule NAME begin now, also of a paused one. Print its status monitor as JSON.

    \b
    Example:
      opstream schedule trigger nightly --wait
    """
    from opstream.cli.client_session import wait_for_end
    from opstream.client import OperationCanceled, OperationFailed
    from opstream_schemas.operation.state import Status

    client_options.check_timeout(click.get_current_context(), is_waiting=is_waiting)
    settings = ServiceSettings(**service)
    with client_session(settings.url, token=client_options.token_of(settings)) as (client, display):
        with first_response(settings.url, RESPONSE_TIMEOUT) as seconds:
            operation = client.schedules.trigger(name, timeout=seconds)
        if is_waiting:
            operation = wait_for_end(client, display, operation, settings.url, timeout)
        print_json(operation.monitor)
        if is_waiting and operation.status is Status.FAILED:
            raise OperationFailed(operation)
        if is_waiting and operation.status is Status.CANCELED:
            raise OperationCanceled(operation, "")


@schedule.command
@_name_argument
@option(
    "--from",
    "begin",
    variable="BACKFILL_FROM",
    type=MomentType(),
    metavar="TIME",
    help="From when on: a date, RFC 3339, or an age such as 6h.",
)
@option(
    "--to",
    "end",
    variable="BACKFILL_TO",
    type=MomentType(),
    metavar="TIME",
    help="Until when, in the same forms; until now without it.",
)
@_json_option
@service_options
def backfill(
    *,
    name: str,
    begin: Moment | None,
    end: Moment | None,
    is_json: bool,
    **service: Any,  # noqa: ANN401 - the options above
) -> None:
    """Make up for the moments of the schedule NAME in a time that has passed, 100 at most.

    A moment that has had its operation stays as it is.
    A table on a terminal, otherwise one JSON object per line.

    \b
    Example:
      opstream schedule backfill nightly --from 3d
      opstream schedule backfill nightly --from 2026-11-24T00:00:00Z --to 2026-11-24T06:00:00Z
    """
    now = datetime.now(UTC)
    since, until = resolve_moment(begin, now), resolve_moment(end, now) or now
    if since is None:
        raise click.UsageError("it needs --from, the begin of the time to make up for, e.g. --from 6h")
    with schedule_calls(ServiceSettings(**service)) as (calls, seconds):
        made = calls.backfill(name, since, until, timeout=seconds)
    if not made:
        click.echo(f"opstream: the schedule {name} was not due in that time", err=True)
        return
    if is_plain(is_json=is_json):
        print_lines(made)
        return
    from opstream.client.schedules.models import ScheduleOccurrence

    shown = [
        ScheduleOccurrence(
            due_at=one.due_at,
            outcome="submitted" if one.operation_id else "refused",
            operation_id=one.operation_id,
            cause="backfill",
            recorded_at=now,
            detail=one.detail,
        )
        for one in made
    ]
    print_occurrences(shown)
