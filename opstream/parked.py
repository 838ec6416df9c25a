"""The command `parked`. Part of `cli`; `unparking` does the work, and is loaded only when it runs."""

from __future__ import annotations

from typing import Any

import click

from . import options

retry_option = options.option(
    "--retry",
    "is_retry",
    variable="RETRY",
    is_flag=True,
    help="Have a running subscriber try them again, one after the other; what succeeds is parked no more.",
)
json_option = options.option(
    "--json", "is_json", variable="JSON", is_flag=True, help="One JSON object per line, also on a terminal."
)


@click.command(short_help="Show events that subscribers could not handle.")
@click.argument("durable", metavar="[DURABLE]", required=False)
@click.argument("sequences", metavar="[SEQUENCE]...", nargs=-1, type=click.IntRange(1))
@retry_option
@json_option
@options.nats_option
@options.connect_timeout_option
def parked(**given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Show the events that subscribers could not handle: all, those of DURABLE, or just some of its SEQUENCEs.

    A table on a terminal, otherwise one JSON object per line. With --retry they are tried again, and the exit status
    is 1 if one stays parked.

    \b
    Example:
      opstream parked
      opstream parked mailer 1234 --retry
    """
    from .unparking import Parked, run

    if given["is_retry"] and not given["durable"]:
        raise click.UsageError("--retry needs the durable, e.g. 'opstream parked mailer --retry'")
    run(Parked(**given))
