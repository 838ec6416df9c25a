"""`opstream broker`: the embedded NATS server."""

from __future__ import annotations

from pathlib import Path

import click

from opstream.cli.options import common as common_options
from opstream.cli.options.option import option


@click.command
@common_options.nats_host_option
@common_options.nats_port_option
@common_options.data_dir_option
@option(
    "--accounts",
    variable="ACCOUNTS",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="The accounts.conf that 'opstream broker-config' wrote: each role then needs its key.",
)
@common_options.log_level_option
def broker(nats_host: str, nats_port: int, data_dir: Path, accounts: Path | None, log_level: str) -> None:
    """Run a NATS server that loses nothing that it has acknowledged: JetStream on disk, every write synced.

    It is one server on one disk, for a single machine; in production use a cluster of three with the same settings. It
    has no passwords without --accounts: keep --nats-host on a private address. Next: 'opstream provision'.

    \b
    Example:
      opstream broker --data-dir /var/lib/opstream
    """
    from opstream.local.nats_server import Settings, run_broker

    is_debug = log_level == "debug"
    run_broker(Settings(host=nats_host, port=nats_port, data_dir=data_dir, is_debug=is_debug, accounts=accounts))
