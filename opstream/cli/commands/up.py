"""`opstream up`: the whole system on this machine."""

from __future__ import annotations

from typing import Any

import click

from opstream.cli.options import access as access_options
from opstream.cli.options import common as common_options
from opstream.cli.options import jwt as jwt_options
from opstream.cli.options import proxy as proxy_options
from opstream.cli.options import webhooks as webhook_options
from opstream.cli.options.option import option
from opstream.cli.options.stores import local_index_option, local_payload_store_option, max_upload_option
from opstream.cli.service_process import settle_memory
from opstream.cli.tracing_session import check_installed
from opstream.terminal import logs


@click.command
@common_options.host_option
@common_options.port_option
@common_options.public_url_option
@access_options.access_options
@jwt_options.jwt_options
@proxy_options.allowed_host_option
@proxy_options.allowed_origin_option
@proxy_options.cors_origin_option
@common_options.nats_port_option
@common_options.data_dir_option
@common_options.actions_option()
@common_options.concurrency_option
@common_options.drain_option
@common_options.max_body_option()
@max_upload_option
@common_options.max_result_option()
@common_options.archive_option
@local_index_option
@local_payload_store_option
@common_options.kek_options
@webhook_options.config_option
@webhook_options.callback_host_option
@webhook_options.callback_secret_option
@webhook_options.allow_private_option
@webhook_options.allow_http_option
@option(
    "--health-port",
    variable="HEALTH_PORT",
    type=click.IntRange(0, 65_532),
    default=0,
    metavar="PORT",
    help="Serve /healthz, /readyz and /metrics of api, projector, runner and webhooks on this port of this machine and "
    "the three after it; 0 picks free ones.",
)
@option(
    "--processes",
    "is_apart",
    variable="PROCESSES",
    is_flag=True,
    help="Run api, projector and webhooks as processes of their own instead of one ('opstream hub'). It takes 50 MiB "
    "more.",
)
@option(
    "--secure",
    "is_secure",
    variable="SECURE",
    is_flag=True,
    help="Give each service a key of its own at the broker, which may do only what it needs (docs/broker-access.md). "
    "The keys are in --data-dir.",
)
@common_options.log_level_option
@common_options.log_format_option
@common_options.otel_option
@common_options.request_log_option
def up(**given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Run everything on this machine: broker, api, projector, runner and webhooks.

    The runner, which executes your code, and the broker are processes of their own; the others share one.
    Prints one line with the URLs when everything is ready. Ctrl-C or SIGTERM stops everything in order: running actions
    have --drain to end, and those that still run then continue at the next start. A second Ctrl-C or SIGTERM kills what
    is left. If a process dies, the others are stopped and the exit status is 1.

    \b
    Example:
      opstream up --actions shop.orders
      opstream run order/7:ship --input '{"items": ["book"]}'   # in another terminal
    """
    from opstream.local.supervisor import run_all
    from opstream.local.system_commands import Settings

    access_options.check_access(given)
    given["jwt"] = jwt_options.jwt_arguments(jwt_options.take_jwt_settings(given))
    if given["is_traced"]:
        check_installed()
    common_options.check_keks(given)
    webhook_options.check_config(given)
    proxy_options.check_cors_origins(given["cors_origins"], identity_header="", is_authenticated=bool(given["auth"]))
    if given["port"] and given["port"] == given["nats_port"]:
        raise click.UsageError("--port and --nats-port are the same: choose two, or 0 for a free one")
    if given["log_format"] == logs.JSON:
        logs.configure(given["log_level"], logs.JSON, service="opstream")
    settle_memory()
    run_all(Settings(**given))
