"""`opstream projector`: the service that keeps the view up to date."""

from __future__ import annotations

import click

from opstream.cli import service_process as serving
from opstream.cli.options import common as options


@click.command(short_help="Keep the view up to date.")
@options.nats_option
@options.health_port_option
@options.connect_timeout_option
@options.log_level_option
def projector(*, servers: tuple[str, ...], health_port: int, connect_timeout: float, log_level: str) -> None:
    """Keep the view up to date: one snapshot of each operation, folded from its events. Run two for safety.

    It needs a provisioned broker. Without it every status is still right, only slower to read.

    \b
    Example:
      opstream projector --nats nats://n1:4222 --health-port 8081
    """
    serving.prepare_process(log_level)
    from opstream_projector.main import run
    from opstream_projector.settings import Settings

    serving.run_service(
        lambda: run(Settings(servers=servers, health_port=health_port, connect_timeout=connect_timeout))
    )
