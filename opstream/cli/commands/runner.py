"""`opstream runner`: the service that executes actions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from opstream.cli.options import common as common_options
from opstream.cli.options.option import option
from opstream.cli.options.stores import payload_store_option
from opstream.cli.service_process import allow_local_modules, prepare_process, run_service
from opstream.cli.tracing_session import tracing_session
from opstream_schemas.urls import BrokerCredentials

if TYPE_CHECKING:
    from opstream_payloads.location import StoreLocation

_schema_change_option = option(
    "--allow-schema-change",
    "allows_schema_change",
    variable="ALLOW_SCHEMA_CHANGE",
    is_flag=True,
    help="Start although an action's types differ from those that were announced as the same version. Raise the "
    "version instead, unless no request waits.",
)


@click.command
@common_options.nats_option
@common_options.actions_option()
@common_options.concurrency_option
@common_options.drain_option
@common_options.max_result_option()
@payload_store_option
@common_options.kek_options
@_schema_change_option
@common_options.health_port_option
@common_options.health_host_option
@common_options.connect_timeout_option
@common_options.log_level_option
@common_options.log_format_option
@common_options.otel_option
def runner(
    *,
    servers: tuple[str, ...],
    credentials: BrokerCredentials,
    modules: tuple[str, ...],
    concurrency: int,
    drain: float,
    max_result: int,
    payload_store: StoreLocation,
    allows_schema_change: bool,
    health_port: int,
    health_host: str,
    connect_timeout: float,
    log_level: str,
    log_format: str,
    is_traced: bool,
    **given: Any,  # noqa: ANN401 - the options of the keys
) -> None:
    """Execute the actions of Python modules. Run as many as you like: they share the work.

    It needs a provisioned broker. After SIGTERM it starts nothing new, lets running attempts end within --drain, and
    releases the rest, so that another runner continues at once.

    \b
    Example:
      opstream runner --nats nats://n1:4222 --actions shop.orders --drain 60s
    """
    keks = common_options.take_keks(given)
    prepare_process(log_level, log_format, "runner")
    from opstream_payloads.errors import PayloadError
    from opstream_runner import InvalidAction
    from opstream_runner.main import run
    from opstream_runner.settings import Settings
    from opstream_schemas.errors import InvalidKek

    allow_local_modules()
    with tracing_session("runner", is_traced=is_traced) as tracing:
        run_service(
            lambda: run(
                Settings(
                    servers=servers,
                    credentials=credentials,
                    modules=modules,
                    concurrency=concurrency,
                    drain=drain,
                    health_port=health_port,
                    health_host=health_host,
                    result_limit=max_result,
                    payload_store=payload_store,
                    allows_schema_change=allows_schema_change,
                    connect_timeout=connect_timeout,
                    keks=keks,
                    tracing=tracing,
                )
            ),
            known=(InvalidAction, InvalidKek, PayloadError),
        )
