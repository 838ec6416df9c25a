"""The command `parked`. Part of `cli`; `unparking` does the work, and is loaded only when it runs."""

from __future__ import annotations

from typing import Any, Final

import click

from opstream.cli.options import common as options
from opstream_schemas.errors import InvalidName
from opstream_schemas.names import check_durable_name

_LAST: Final = 2**63 - 1


def _check_durable(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    try:
        return value if value is None else check_durable_name(value)
    except InvalidName as error:
        raise click.BadParameter(str(error), ctx, param) from error


def _once(_ctx: click.Context, _param: click.Parameter, value: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(value))


retry_option = options.option(
    "--retry",
    "is_retry",
    variable="RETRY",
    is_flag=True,
    help="Have a running subscriber try them again, one after the other; what succeeds is parked no more.",
)
forget_option = options.option(
    "--forget",
    "is_forgetting",
    variable="FORGET",
    is_flag=True,
    help="Remove them for good. In the journal the events stay.",
)
json_option = options.option(
    "--json", "is_json", variable="JSON", is_flag=True, help="One JSON object per line, also on a terminal."
)


@click.command(short_help="Show events that subscribers could not handle.")
@click.argument("durable", metavar="[DURABLE]", required=False, callback=_check_durable)
@click.argument("sequences", metavar="[SEQUENCE]...", nargs=-1, type=click.IntRange(1, _LAST), callback=_once)
@retry_option
@forget_option
@json_option
@options.nats_option
@options.connect_timeout_option
def parked(**given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Show the events that subscribers could not handle: all, those of DURABLE, or just some of its SEQUENCEs.

    A table on a terminal, otherwise one JSON object per line. With --retry they are tried again, and the exit status
    is 1 if one stays parked. It is 1, too, if nothing is parked under one of the SEQUENCEs.

    \b
    Example:
      opstream parked
      opstream parked mailer 1234 --retry
      opstream parked mailer 1235 1240 --forget
    """
    from .unparking import Parked, run

    if given["is_retry"] and given["is_forgetting"]:
        raise click.UsageError("--retry and --forget are two ways to be rid of an event: choose one")
    if (given["is_retry"] or given["is_forgetting"]) and not given["durable"]:
        name = "--retry" if given["is_retry"] else "--forget"
        raise click.UsageError(f"{name} needs the durable, e.g. 'opstream parked mailer {name}'")
    run(Parked(**given))
