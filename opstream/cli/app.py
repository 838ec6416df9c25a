"""The `opstream` command: reads options and the environment, then hands over to what does the work.

The one place where a setting of the environment is read. Each command imports its service only when it runs, so that
`opstream broker` loads no web framework.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from opstream._version import __version__
from opstream.local import parent
from opstream.terminal import logs

from .command_list import COMMANDS, Sections
from .commands import service_process as serving
from .options import common as options
from .options import proxy as proxy_options
from .options import webhooks as webhook_options
from .options.option import PathArgument

EPILOG = (
    "Every option can also be set by the variable shown with it; lists are comma-separated there. On one machine: "
    "'opstream up'. In production: run provision once, then api, runner, projector and webhooks, as many as you like."
)


@click.group(
    cls=Sections, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, epilog=EPILOG
)
@click.version_option(__version__, message="%(prog)s %(version)s", prog_name="opstream")
def main() -> None:
    """Durable long-running operations behind plain HTTP, on NATS JetStream.

    Try it: 'opstream demo'. Use it: 'opstream up --actions YOUR_MODULE', then 'opstream run TARGET'.
    """
    parent.die_with_supervisor()


for command in COMMANDS:
    main.add_command(command)


@main.command(short_help="Run everything on this machine.")
@options.host_option
@options.port_option
@options.public_url_option
@options.nats_port_option
@options.data_dir_option
@options.actions_option()
@options.concurrency_option
@options.drain_option
@options.max_body_option()
@options.max_result_option()
@options.archive_option
@webhook_options.config_option
@webhook_options.callback_host_option
@webhook_options.callback_secret_option
@webhook_options.allow_private_option
@webhook_options.allow_http_option
@options.log_level_option
def up(**given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Run everything on this machine: broker, api, projector, runner and webhooks.

    Prints one line with the URLs when all of it is ready. Ctrl-C or SIGTERM stops everything in order: running actions
    have --drain to end, what still runs goes on at the next start. A second one kills. If a part dies, the rest is
    stopped and the exit status is 1.

    \b
    Example:
      opstream up --actions shop.orders
      curl -i -X POST http://127.0.0.1:8080/order/7:ship -H 'Content-Type: application/json' -d '{}'
    """
    from opstream.local.supervisor import Settings, run

    webhook_options.check(given)
    if given["port"] and given["port"] == given["nats_port"]:
        raise click.UsageError("--port and --nats-port are the same: choose two, or 0 for a free one")
    run(Settings(**given))


@main.command(short_help="Run the embedded NATS server.")
@options.nats_host_option
@options.nats_port_option
@options.data_dir_option
@options.log_level_option
def broker(nats_host: str, nats_port: int, data_dir: Path, log_level: str) -> None:
    """Run a NATS server that keeps what it acknowledges: JetStream on disk, every write synced.

    One server on one disk, for a single machine; in production use a cluster of three with the same settings. It has
    no passwords: keep --nats-host on a private address. Next: 'opstream provision'.

    \b
    Example:
      opstream broker --data-dir /var/lib/opstream
    """
    from opstream.local.nats_server import Settings, run

    run(Settings(host=nats_host, port=nats_port, data_dir=data_dir, is_debug=log_level == "debug"))


@main.command(short_help="Make what opstream needs on a broker, or compare it.")
@options.nats_option
@options.option(
    "--replicas",
    variable="REPLICAS",
    type=click.IntRange(1, 5),
    metavar="N",
    help="Copies of every stream: 3 in a cluster. A new broker gets 1 without it.",
)
@options.option(
    "--max-age",
    variable="MAX_AGE",
    type=options.Duration(unlimited=0.0),
    help="How long events are kept, e.g. 90d, or unlimited. It must exceed the longest deadline plus retention by a "
    "day. A new broker gets 30d without it.",
)
@options.option(
    "--max-bytes",
    variable="MAX_BYTES",
    type=options.Size(unlimited=-1),
    help="The most that the journal may take, e.g. 50GiB, or unlimited. A new broker gets unlimited without it.",
)
@options.option(
    "--max-msg-size",
    variable="MAX_MSG_SIZE",
    type=options.Size(unlimited=-1, most="64MiB"),
    help="The largest event, or unlimited. A new broker gets 272KiB without it.",
)
@options.max_body_option(None)
@options.max_result_option(None)
@options.actions_option(default=())
@options.archive_option
@options.archive_max_age_option
@options.option(
    "--update", "is_update", variable="UPDATE", is_flag=True, help="Apply the differences that are safe to apply."
)
@options.connect_timeout_option
@options.log_level_option
def provision(log_level: str, **given: Any) -> None:  # noqa: ANN401
    """Make the streams, buckets and consumers that opstream needs on a broker. Run it as often as you like.

    What exists is compared and never changed without --update. A limit that is not given stays as it is. The exit
    status is 0 if nothing differs in the end, otherwise 1. With --actions, the consumers of these actions are
    compared too.

    \b
    Example:
      opstream provision --nats nats://n1:4222 --replicas 3 --max-age 90d --archive
    """
    logs.configure(log_level)
    from .commands.provision import Settings, run

    _allow_local_modules()
    run(Settings(**given))


@main.command(short_help="Serve HTTP.")
@options.nats_option
@options.host_option
@options.port_option
@options.public_url_option
@options.max_body_option()
@proxy_options.proxy_options
@webhook_options.callback_host_option
@webhook_options.allow_http_option
@options.connect_timeout_option
@options.log_level_option
def api(*, log_level: str, public_url: str | None, max_body: int, **given: Any) -> None:  # noqa: ANN401
    """Serve HTTP: submit, status, /openapi.json, /asyncapi.json, /healthz and /readyz. Run as many as you like.

    It needs a provisioned broker, and learns from it what actions there are.

    \b
    Example:
      opstream api --nats nats://n1:4222 --host 0.0.0.0 --public-url https://api.example.com
    """
    proxy_options.check(
        given["trusted_proxies"], **{name: given[name] for name in ("identity_header", "client_id_header")}
    )
    serving.begin(log_level)
    from opstream_api.main import run
    from opstream_api.settings import Settings

    given["callbacks"] = webhook_options.policy(given)
    serving.serve(lambda: run(Settings(public_url=public_url or "", body_limit=max_body, **given)))


@main.command(short_help="Execute actions.")
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
    serving.begin(log_level)
    from opstream_runner.main import run
    from opstream_runner.settings import Settings

    _allow_local_modules()
    serving.serve(
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


@main.command(short_help="Keep the view up to date.")
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
    serving.begin(log_level)
    from opstream_projector.main import run
    from opstream_projector.settings import Settings

    serving.serve(lambda: run(Settings(servers=servers, health_port=health_port, connect_timeout=connect_timeout)))


@main.command(short_help="Write JSON Schemas and the AsyncAPI document of all events.")
@click.argument("folder", metavar="DIR", type=PathArgument(path_type=Path, file_okay=False))
def schemas(folder: Path) -> None:
    """Write the JSON Schemas of events and operation, and asyncapi.json, into DIR, for readers in other languages.

    \b
    Example:
      opstream schemas contract
    """
    from .commands.schemas import write_schemas

    for path in write_schemas(folder):
        click.echo(path)


@main.command(short_help="See the whole system at work; leaves nothing behind.")
def demo() -> None:
    """Show the whole system at work: start it in a temporary folder, upload a book over HTTP, read its events.

    Takes a few seconds, needs no network and leaves nothing behind.

    \b
    Example:
      opstream demo
    """
    from opstream.local.demo import run

    run()


def _allow_local_modules() -> None:
    """Let --actions find modules of the working directory, which only `python -m` would put on the path."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
