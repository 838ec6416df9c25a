"""`opstream webhooks`: the service that delivers outcomes."""

from __future__ import annotations

from typing import Any

import click

from opstream.cli.options import common as common_options
from opstream.cli.options import webhooks as webhook_options
from opstream.cli.service_process import prepare_process, run_service
from opstream.cli.tracing_session import tracing_session


@click.command
@common_options.nats_option
@webhook_options.config_option
@webhook_options.callback_host_option
@webhook_options.callback_secret_option
@webhook_options.allow_private_option
@webhook_options.allow_http_option
@common_options.health_port_option
@common_options.health_host_option
@common_options.connect_timeout_option
@common_options.log_level_option
@common_options.log_format_option
@common_options.otel_option
def webhooks(**given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Deliver outcomes over HTTP: to endpoints of --config, and to the callbacks of requests. Run two for safety.

    Each delivery is signed as Standard Webhooks says, tried again for a day if it fails, and recorded ('opstream
    deliveries'). The service needs a provisioned broker. SIGHUP makes it read endpoints and secrets again.

    \b
    Example:
      opstream webhooks --config hooks.toml
    """
    prepare_process(given["log_level"], given["log_format"], "webhooks")
    webhook_options.check_config(given)
    from opstream_webhooks.main import run
    from opstream_webhooks.settings import Settings

    with tracing_session("webhooks", is_traced=given["is_traced"]) as tracing:
        run_service(
            lambda: run(
                Settings(
                    servers=given["servers"],
                    credentials=given["credentials"],
                    source=webhook_options.config_source(given),
                    allowed_networks=given["networks"],
                    health_port=given["health_port"],
                    health_host=given["health_host"],
                    connect_timeout=given["connect_timeout"],
                    tracing=tracing,
                )
            )
        )
