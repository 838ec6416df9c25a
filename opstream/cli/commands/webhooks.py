"""The commands about webhooks: the service, what it has delivered, and what is to be sent again. Part of `cli`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import click

from opstream.cli.options import common as options
from opstream.cli.options import webhooks as webhook_options

from . import service_process as serving


@click.command(short_help="Deliver outcomes over HTTP, signed and retried.")
@options.nats_option
@webhook_options.config_option
@webhook_options.callback_host_option
@webhook_options.callback_secret_option
@webhook_options.allow_private_option
@webhook_options.allow_http_option
@options.health_port_option
@options.connect_timeout_option
@options.log_level_option
def webhooks(**given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Deliver outcomes over HTTP: to endpoints of --config, and to the callbacks of requests. Run two for safety.

    Each delivery is signed after Standard Webhooks, tried again for a day if it fails, and recorded ('opstream
    deliveries'). It needs a provisioned broker. SIGHUP has endpoints and secrets read again.

    \b
    Example:
      opstream webhooks --config hooks.toml
    """
    serving.begin(given["log_level"])
    webhook_options.check(given)
    from opstream_webhooks.main import run
    from opstream_webhooks.settings import Settings

    serving.serve(
        lambda: run(
            Settings(
                servers=given["servers"],
                source=webhook_options.source(given),
                allowed_networks=given["networks"],
                health_port=given["health_port"],
                connect_timeout=given["connect_timeout"],
            )
        )
    )


@click.command(short_help="Show the attempts to deliver outcomes.")
@webhook_options.id_argument
@options.option(
    "--failed",
    "is_failed",
    variable="FAILED",
    is_flag=True,
    help="Only attempts that failed, those that are followed by another included.",
)
@options.option(
    "--json", "is_json", variable="JSON", is_flag=True, help="One JSON object per line, also on a terminal."
)
@options.nats_option
@options.connect_timeout_option
def deliveries(**given: Any) -> None:  # noqa: ANN401
    """Show every attempt to deliver an outcome, oldest first; with ID, those of one operation.

    A table on a terminal, otherwise one JSON object per line. Records are kept for 30 days.

    \b
    Example:
      opstream deliveries --failed | jq -r .operationId
    """
    from .deliveries import Show, show

    show(Show(**given))


@click.command(short_help="Send again what was not delivered.")
@webhook_options.ids_argument
@webhook_options.endpoint_option
@options.nats_option
@options.connect_timeout_option
def redeliver(**given: Any) -> None:  # noqa: ANN401
    """Have deliveries that failed tried again now, with all their tries before them: those of the operations ID, or,
    without any, all of --endpoint.

    What was given up counts, and what waits for its next try; not what was delivered in the end. Receivers know
    repetitions by their 'webhook-id', which stays the same. 'opstream webhooks' must run, and makes the deliveries.

    \b
    Example:
      opstream redeliver --endpoint billing
    """
    if not given["operation_ids"] and not given["endpoint"]:
        raise click.UsageError("say what to send again: ids of operations, or --endpoint NAME for all of an endpoint")
    from .redeliver import Redeliver, run

    run(Redeliver(now=datetime.now(UTC), **given))


COMMANDS: Final = (webhooks, deliveries, redeliver)
