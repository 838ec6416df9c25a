"""`opstream projector`: the service that keeps the view up to date."""

from __future__ import annotations

from typing import Any

import click

from opstream.cli.options import common as common_options
from opstream.cli.options.stores import index_option, payload_store_option
from opstream.cli.service_process import prepare_process, run_service


@click.command
@common_options.nats_option
@index_option
@payload_store_option
@common_options.health_port_option
@common_options.health_host_option
@common_options.connect_timeout_option
@common_options.log_level_option
@common_options.log_format_option
def projector(*, log_level: str, log_format: str, **given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Keep the view up to date: one snapshot of each operation, folded from its events. Run two for safety.

    It needs a provisioned broker. Without a projector every status is still right, only slower to read. With --index
    it also writes the index of all operations, which it makes from the view, also when the index is lost.

    \b
    Example:
      opstream projector --nats nats://n1:4222 --health-port 8081
    """
    prepare_process(log_level, log_format, "projector")
    from opstream_index.errors import IndexFault
    from opstream_payloads.errors import PayloadError
    from opstream_projector.main import run
    from opstream_projector.settings import Settings

    run_service(lambda: run(Settings(**given)), known=(IndexFault, PayloadError))
