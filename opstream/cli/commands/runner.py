"""`opstream runner`: the service that executes actions."""

from __future__ import annotations

import click

from opstream.cli import service_process as serving
from opstream.cli.options import common as options


@click.command(short_help="Execute actions.")
@options.nats_option
@options.actions_option()
@options.concurrency_option
@options.drain_option
@options.max_result_option()
@options.health_port_option
@options.connect_timeout_option
@options.log_level_option
def runner(
    *,
    servers: tuple[str, ...],
    modules: tuple[str, ...],
    concurrency: int,
    drain: float,
    max_result: int,
    health_port: int,
    connect_timeout: float,
    log_level: str,
) -> None:
    """Execute the actions of Python modules. Run as many as you like: they share the work.

    It needs a provisioned broker. After SIGTERM it takes nothing new, lets what runs end within --drain, and hands back
    the rest, so that another runner continues at once.

    \b
    Example:
      opstream runner --nats nats://n1:4222 --actions shop.orders --drain 60s
    """
    serving.prepare_process(log_level)
    from opstream_runner.main import run
    from opstream_runner.settings import Settings

    serving.allow_local_modules()
    serving.run_service(
        lambda: run(
            Settings(
                servers=servers,
                modules=modules,
                concurrency=concurrency,
                drain=drain,
                health_port=health_port,
                result_limit=max_result,
                connect_timeout=connect_timeout,
            )
        )
    )
