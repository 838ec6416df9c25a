"""`opstream actions`: shows actions, their runners and what waits; pauses, resumes and withdraws them."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from opstream.cli.options import common as common_options
from opstream.cli.options.option import Decorator, checked, option
from opstream.cli.options.value_types import Duration
from opstream.terminal.console import CommandError, coloured, line_width, printable, shown_json, supports_colour
from opstream.terminal.table import fits_beside, text_below, text_beside
from opstream_schemas.action_spec import MAX_PAUSE_REASON
from opstream_schemas.errors import InvalidName
from opstream_schemas.logs.access_log import AdminAct
from opstream_schemas.names import Kind
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials

if TYPE_CHECKING:
    from opstream_journal.actions.action_overview import ActionOverview
    from opstream_schemas.action_spec import ActionPause

_HEADING: Final = f"{'action':<32}  {'version':>7}  {'runners':>7}  {'busy':>9}  {'waiting':>7}  {'oldest':>8}"


class BrokerPlace(msgspec.Struct, frozen=True, kw_only=True):
    """The broker, and the login there."""

    servers: tuple[str, ...]
    credentials: BrokerCredentials = NO_CREDENTIALS
    connect_timeout: float
    """Seconds."""


class ActionsSettings(BrokerPlace, frozen=True, kw_only=True):
    """The options of `opstream actions`."""

    is_json: bool


def _check_kind(text: str) -> Kind:
    return Kind.parse_routable(text)


def _check_reason(text: str) -> str:
    if len(text) > MAX_PAUSE_REASON:
        raise InvalidName(f"the reason has {len(text)} characters: write {MAX_PAUSE_REASON} at most")
    return text


_kind_argument: Final = click.argument("kind", metavar="ACTION", callback=checked(_check_kind))
_reason_option: Final[Decorator[Any]] = option(
    "--reason",
    variable="ACTIONS_REASON",
    default="",
    metavar="TEXT",
    callback=checked(_check_reason),
    help="Why, for those who see the action or an operation that waits for it.",
)
_for_option: Final[Decorator[Any]] = option(
    "--for",
    "seconds",
    variable="ACTIONS_FOR",
    type=Duration(is_positive=True),
    metavar="DURATION",
    help="How long, e.g. 2h; then it resumes by itself. Without it until 'opstream actions resume'.",
)


class _ListingGroup(click.Group):
    """A group that lists without a command, so that `opstream actions` does what `opstream actions list` does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the command in front of options that are not the group's."""
        is_bare = not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names)
        return super().parse_args(ctx, ["list", *args] if is_bare else args)


@click.group(cls=_ListingGroup)
def actions() -> None:
    """Show the actions that runners have announced, pause, resume and withdraw them. Without a command it lists them.

    \b
    Example:
      opstream actions
      opstream actions pause book:upload-start --for 2h --reason 'the storage is being moved'
      opstream actions resume book:upload-start
    """


@actions.command(name="list")
@option("--json", "is_json", variable="JSON", is_flag=True, help="One JSON object per line, also on a terminal.")
@common_options.nats_option
@common_options.connect_timeout_option
def list_actions(**given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Show each action that runners have announced: its version, its runners, how many of their slots are busy, how
    many operations wait, for how long the oldest, and for what.

    A table on a terminal, otherwise one JSON object per line, with a record of each runner. Runners of 0.5.0 or earlier
    are not counted.

    \b
    Example:
      opstream actions --nats nats://n1:4222
      opstream actions | jq -r 'select(.runners == []).action'
    """
    show_actions(ActionsSettings(**given))


@actions.command
@_kind_argument
@_for_option
@_reason_option
@common_options.nats_option
@common_options.connect_timeout_option
def pause(*, kind: Kind, seconds: float | None, reason: str, **place: Any) -> None:  # noqa: ANN401 - the options above
    """Let no attempt of an action begin, for a time or until it is resumed.

    What runs goes on. What is submitted is accepted, and waits, and can be canceled; its deadline goes on. The broker
    enforces it, so it holds for all runners, of whatever version, and through restarts.

    \b
    Example:
      opstream actions pause book:upload-start --for 2h --reason 'the storage is being moved'
    """
    asyncio.run(_pause(kind, seconds, reason, BrokerPlace(**place)))


@actions.command
@_kind_argument
@common_options.nats_option
@common_options.connect_timeout_option
def resume(*, kind: Kind, **place: Any) -> None:  # noqa: ANN401 - the options above
    """Let attempts of a paused action begin again.

    \b
    Example:
      opstream actions resume book:upload-start
    """
    asyncio.run(_resume(kind, BrokerPlace(**place)))


def show_actions(settings: ActionsSettings) -> None:
    """Print the actions: a table on a terminal, otherwise one JSON object per line.

    Raises:
        CommandError: as `broker_session`.
    """
    asyncio.run(_show(settings))


@actions.command
@_kind_argument
@_reason_option
@common_options.nats_option
@common_options.connect_timeout_option
def withdraw(*, kind: Kind, reason: str, **place: Any) -> None:  # noqa: ANN401 - the options above
    """Take an action that has no runner out of the catalog: nobody can submit it until a runner announces it again.

    That runner may have a lower version, so this is the way back after a new version that was wrong. What waits for the
    action goes on to wait, and can be canceled.

    \b
    Example:
      opstream actions withdraw book:upload-start --reason 'version 4 was wrong'
    """
    asyncio.run(_withdraw(kind, reason, BrokerPlace(**place)))


async def _show(settings: ActionsSettings) -> None:
    from opstream.cli.broker_session import broker_session
    from opstream_journal.stores.action_catalog import overview

    async with broker_session(
        settings.servers, "actions", settings.connect_timeout, credentials=settings.credentials
    ) as connection:
        found = await overview(connection)
    if not found:
        click.echo("opstream: no runner has announced an action: 'opstream runner --actions …' does", err=True)
        return
    if not sys.stdout.isatty() or settings.is_json:
        for one in found:
            click.echo(shown_json(msgspec.json.encode(one)))
        return
    has_colour, width = supports_colour(sys.stdout), line_width(sys.stdout)
    click.echo(f"{_HEADING}  what" if fits_beside(_HEADING, width) else _HEADING)
    for one in found:
        click.echo(table_row(one, datetime.now(UTC), has_colour=has_colour, width=width), color=has_colour or None)


async def _pause(kind: Kind, seconds: float | None, reason: str, place: BrokerPlace) -> None:
    from opstream.cli.admin_acts import record_act, who_acts
    from opstream.cli.broker_session import broker_session
    from opstream_journal.actions.action_controls import ActionControls
    from opstream_schemas.action_spec import ActionPause

    now = datetime.now(UTC)
    until = None if seconds is None else now + timedelta(seconds=seconds)
    made = ActionPause(since=now, until=until, by=who_acts(), reason=reason)
    async with broker_session(
        place.servers, "actions", place.connect_timeout, credentials=place.credentials
    ) as connection:
        if not await ActionControls(connection).pause(kind, made):
            raise _unknown(kind)
        await record_act(connection, AdminAct.PAUSED, target=str(kind), detail=reason)
    shown = "until 'opstream actions resume'" if until is None else f"until {until:%Y-%m-%dT%H:%M:%SZ}"
    click.echo(f"{kind} is paused {shown}: what runs goes on, nothing begins")


async def _resume(kind: Kind, place: BrokerPlace) -> None:
    from opstream.cli.admin_acts import record_act
    from opstream.cli.broker_session import broker_session
    from opstream_journal.actions.action_controls import ActionControls

    async with broker_session(
        place.servers, "actions", place.connect_timeout, credentials=place.credentials
    ) as connection:
        if not await ActionControls(connection).resume(kind):
            raise _unknown(kind)
        await record_act(connection, AdminAct.RESUMED, target=str(kind))
    click.echo(f"{kind} goes on: what waits begins")


async def _withdraw(kind: Kind, reason: str, place: BrokerPlace) -> None:
    from opstream.cli.admin_acts import record_act, who_acts
    from opstream.cli.broker_session import broker_session
    from opstream_journal.stores.action_catalog import withdraw_action

    async with broker_session(
        place.servers, "actions", place.connect_timeout, credentials=place.credentials
    ) as connection:
        spec = await withdraw_action(connection, kind, at=datetime.now(UTC), by=who_acts(), reason=reason)
        if spec is None:
            raise _unknown(kind)
        await record_act(connection, AdminAct.WITHDRAWN, target=str(kind), detail=reason)
    click.echo(
        f"{kind} version {spec.action_version} is withdrawn: within 10 seconds no API takes it, until a runner "
        "announces the action again"
    )


def _unknown(kind: Kind) -> CommandError:
    return CommandError(f"no runner has ever announced {kind}: 'opstream actions' shows those that there are")


def table_row(one: ActionOverview, now: datetime, *, has_colour: bool, width: int | None) -> str:
    """One action of the table. On a narrow terminal what its operations wait for is on a line of its own.

    Args:
        one: what the row shows.
        now: the time with a time zone.
        has_colour: whether to colour it.
        width: columns of the terminal; None for no limit.
    """
    slots, free = sum(runner.slots for runner in one.runners), sum(runner.free for runner in one.runners)
    number, oldest = sum(wait.number for wait in one.waiting), max((wait.oldest for wait in one.waiting), default=0.0)
    busy = f"{slots - free}/{slots}" if one.runners else "-"
    count = coloured(f"{len(one.runners):>7}", None if one.runners else "red", has_colour=has_colour)
    age = _shown_seconds(oldest) if number else "-"
    head = f"{printable(one.action):<32}  {one.version or '-':>7}  {count}  {busy:>9}  {number:>7}  {age:>8}"
    what = _what(one, now)
    return text_beside(head, what, width) if fits_beside(_HEADING, width) else text_below(head, what, width)


def _what(one: ActionOverview, now: datetime) -> str:
    parts = [] if one.paused is None else [_paused(one.paused)]
    parts += [f"{wait.number} for {wait.reason}" for wait in one.waiting]
    parts += [f"{queue.number} {queue.priority}" for queue in one.queues or () if queue.number]
    versions = sorted({runner.version for runner in one.runners})
    if versions not in ([], [one.version]):
        parts.append(f"runners of version {', '.join(map(str, versions))}")
    if not one.runners and one.last_runner_at is not None:
        parts.append(f"no runner for {_shown_seconds((now - one.last_runner_at).total_seconds())}")
    return "; ".join(parts)


def _paused(pause: ActionPause) -> str:
    since = "" if pause.since is None else f" since {pause.since.astimezone(UTC):%Y-%m-%dT%H:%MZ}"
    until = "" if pause.until is None else f" until {pause.until.astimezone(UTC):%Y-%m-%dT%H:%MZ}"
    by = f" by {pause.by}" if pause.by else ""
    return printable(f"paused{since}{until}{by}{f' ({pause.reason})' if pause.reason else ''}")


def _shown_seconds(seconds: float) -> str:
    whole = timedelta(seconds=max(0, round(seconds)))
    hours, rest = divmod(whole.seconds, 3_600)
    if whole.days:
        return f"{whole.days}d {hours}h"
    if hours:
        return f"{hours}h {rest // 60}m"
    return f"{rest // 60}m {rest % 60}s" if rest >= 60 else f"{rest}s"
