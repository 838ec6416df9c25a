"""Options of services and of commands that connect to the broker."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import click

from opstream.cli.broker_client import import_broker_client

from .address_types import check_base_url, check_host, check_servers
from .login import login_options
from .option import Decorator, F, option, split_list
from .value_types import Duration, Size

if TYPE_CHECKING:
    from opstream_journal.keys.keks import KekLocation

NATS_URL: Final = "nats://127.0.0.1:4222"

_MAX_DOCUMENT_SIZE: Final = "63MiB"
"""NATS takes no message above 64 MiB, and the event of a request or a result is larger than the document in it."""
LEAST_UNSERVED: Final = 300
"""Seconds: the least of `--refuse-unserved-after` but 0. When an action had its last runner is known to the minute."""
_LEVELS: Final = ("debug", "info", "warning", "error")


def _check_modules(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    modules = split_list(ctx, param, value)
    for module in modules:
        if module.endswith(".py") or not all(part.isidentifier() for part in module.split(".")):
            name = module.removesuffix(".py").strip("./").replace("/", ".")
            example = name if all(part.isidentifier() for part in name.split(".")) else "shop.orders"
            raise click.BadParameter(f"{module!r} is not a module: write its name, e.g. {example}", ctx, param)
    return modules


def _require_modules(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    modules = _check_modules(ctx, param, value)
    if not modules:
        raise click.UsageError(
            "it needs your actions: write --actions with the name of your module, e.g. --actions greetings for a "
            "greetings.py in the working directory, or --actions bookshelf.actions for the example that comes along",
            ctx,
        )
    return modules


def _check_unserved(ctx: click.Context, param: click.Parameter, value: float) -> float:
    if 0 < value < LEAST_UNSERVED:
        message = f"runners are missed for a minute or two at each deployment: write at least {LEAST_UNSERVED // 60}m"
        raise click.BadParameter(message, ctx, param)
    return value


def _check_health_host(ctx: click.Context, param: click.Parameter, value: str) -> str:
    return check_host(ctx, param, value) if value else ""


_servers_option: Final[Decorator[Any]] = option(
    "--nats",
    "servers",
    variable="NATS_URL",
    multiple=True,
    default=(NATS_URL,),
    metavar="URL",
    callback=check_servers,
    help="The broker; repeat it for the members of a cluster, e.g. --nats nats://n1:4222 --nats nats://n2:4222.",
)
connect_timeout_option: Final[Decorator[Any]] = option(
    "--connect-timeout",
    variable="CONNECT_TIMEOUT",
    type=Duration(is_positive=True),
    default="30s",
    help="How long to wait for the broker at the start; then the command ends with exit status 1.",
)
refuse_unserved_option: Final[Decorator[Any]] = option(
    "--refuse-unserved-after",
    variable="REFUSE_UNSERVED_AFTER",
    type=Duration(),
    callback=_check_unserved,
    default="0",
    help="Refuse submits of an action that has had no runner for so long, such as 1d, with 503; 0 for never: they "
    "are accepted, and wait until their deadline.",
)
health_port_option: Final[Decorator[Any]] = option(
    "--health-port",
    variable="HEALTH_PORT",
    type=click.IntRange(0, 65_535),
    default=0,
    metavar="PORT",
    help="Serve /healthz, /readyz and /metrics on this port, for probes and Prometheus; 0 for none.",
)
health_host_option: Final[Decorator[Any]] = option(
    "--health-host",
    variable="HEALTH_HOST",
    default="",
    callback=_check_health_host,
    help="The address that --health-port is served on; 0.0.0.0 for all, 127.0.0.1 for this machine only. Without it, "
    "probes are answered on all addresses, and /metrics to this machine only.",
)
log_level_option: Final[Decorator[Any]] = option(
    "--log-level",
    variable="LOG_LEVEL",
    type=click.Choice(_LEVELS, case_sensitive=False),
    default="info",
    help="The lowest level that is logged (on stderr).",
)
log_format_option: Final[Decorator[Any]] = option(
    "--log-format",
    variable="LOG_FORMAT",
    type=click.Choice(("text", "json"), case_sensitive=False),
    default="text",
    help="How lines of the log are written: text for people, or json, one object a line with time, level, logger, "
    "message, service and the fields of the line.",
)
request_log_option: Final[Decorator[Any]] = option(
    "--request-log/--no-request-log",
    "has_request_log",
    variable="REQUEST_LOG",
    default=True,
    help="Write a line for each HTTP request when it has ended; those of probes only with --log-level debug.",
)
otel_option: Final[Decorator[Any]] = option(
    "--otel",
    "is_traced",
    variable="OTEL",
    is_flag=True,
    help="Send traces to a collector of OpenTelemetry (docs/tracing.md): http://localhost:4318, or what the standard "
    "variables say, e.g. OTEL_EXPORTER_OTLP_ENDPOINT. It needs the extra: pip install 'opstream[otel]'.",
)
concurrency_option: Final[Decorator[Any]] = option(
    "--concurrency",
    variable="CONCURRENCY",
    type=click.IntRange(1, 10_000),
    default=32,
    metavar="N",
    help="Attempts of one action that one runner process executes at once.",
)
drain_option: Final[Decorator[Any]] = option(
    "--drain",
    variable="DRAIN",
    type=Duration(),
    default="10s",
    help="How long running attempts may go on after SIGTERM before they are released to other runners; a second signal "
    "releases them at once.",
)
archive_option: Final[Decorator[Any]] = option(
    "--archive",
    "is_archiving",
    variable="ARCHIVE",
    is_flag=True,
    help="Make the stream ARCHIVE: a compressed copy of every event, which is kept longer than the journal "
    "(docs/retention.md). It stays when the option is left out later.",
)
archive_max_age_option: Final[Decorator[Any]] = option(
    "--archive-max-age",
    variable="ARCHIVE_MAX_AGE",
    type=Duration(unlimited=0.0),
    help="How long the archive keeps events, e.g. 3650d, or unlimited; longer than --max-age. Without it a new archive "
    "keeps them for ever.",
)
host_option: Final[Decorator[Any]] = option(
    "--host",
    variable="HOST",
    default="127.0.0.1",
    callback=check_host,
    help="The address that HTTP is served on; 0.0.0.0 for all addresses of this machine.",
)
port_option: Final[Decorator[Any]] = option(
    "--port",
    variable="PORT",
    type=click.IntRange(0, 65_535),
    default=8080,
    help="The port that HTTP is served on; 0 picks a free one.",
)
public_url_option: Final[Decorator[Any]] = option(
    "--public-url",
    variable="PUBLIC_URL",
    metavar="URL",
    callback=check_base_url,
    help="The URL at which clients reach the API, e.g. https://api.example.com; Operation-Location begins with it. "
    "Without it, the host of each request is used.",
)
nats_host_option: Final[Decorator[Any]] = option(
    "--nats-host",
    variable="NATS_HOST",
    default="127.0.0.1",
    callback=check_host,
    help="The address that the broker listens on.",
)
nats_port_option: Final[Decorator[Any]] = option(
    "--nats-port",
    variable="NATS_PORT",
    type=click.IntRange(0, 65_535),
    default=4222,
    metavar="PORT",
    help="The port that the broker listens on; 0 picks a free one.",
)
data_dir_option: Final[Decorator[Any]] = option(
    "--data-dir",
    variable="DATA_DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default="./.opstream",
    metavar="DIR",
    help="The folder in which the broker keeps everything; it is made if it is missing. With the same folder, all "
    "operations are known after a restart.",
)


def nats_option(command: F) -> F:
    """`--nats URL`, and the options of the login and of TLS (`login.py`), whose values are in `credentials`.

    The client of the broker is imported before the command begins (`import_broker_client`).
    """

    @functools.wraps(command)
    def begin(**given: Any) -> Any:  # noqa: ANN401 - of any command
        import_broker_client()
        return command(**given)

    decorated: F = _servers_option(login_options(cast("F", begin)))
    return decorated


def max_body_option(default: str | None = "4MiB") -> Decorator[Any]:
    """`--max-body SIZE`."""
    return option(
        "--max-body",
        variable="MAX_BODY",
        type=Size(most=_MAX_DOCUMENT_SIZE),
        default=default,
        help="The largest request body that the API accepts (413 above it). Above 256 KiB it is stored as a payload; "
        "for less the journal must accept 16 KiB more: 'opstream provision' with the same option provides for it.",
    )


def max_result_option(default: str | None = "4MiB") -> Decorator[Any]:
    """`--max-result SIZE`."""
    return option(
        "--max-result",
        variable="MAX_RESULT",
        type=Size(most=_MAX_DOCUMENT_SIZE),
        default=default,
        help="The largest result of an action, as JSON; above it the operation is Failed with ResultTooLarge. Above "
        "256 KiB it is stored as a payload, as with --max-body.",
    )


def actions_option(*, is_required: bool = True) -> Decorator[Any]:
    """`--actions MODULE`."""
    return option(
        "--actions",
        "modules",
        variable="ACTIONS",
        multiple=True,
        metavar="MODULE",
        callback=_require_modules if is_required else _check_modules,
        help="A module with @action functions, by its import name (the working directory is searched, too), e.g. "
        "--actions shop.orders --actions shop.stock. The example that comes along is bookshelf.actions.",
    )


_kek_file_option: Final[Decorator[Any]] = option(
    "--kek-file",
    "kek_file",
    variable="KEK_FILE",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="The key-encryption keys of confidential actions, as 'opstream keys new' writes them (docs/confidential.md).",
)
_kek_command_option: Final[Decorator[Any]] = option(
    "--kek-command",
    "kek_command",
    variable="KEK_COMMAND",
    metavar="COMMAND",
    help="In place of --kek-file: a command that prints the same, as one that asks a vault. It is run without a shell.",
)


def kek_options(command: F) -> F:
    """Add `--kek-file` and `--kek-command` to a command."""
    decorated: F = _kek_file_option(_kek_command_option(command))
    return decorated


def check_keks(given: Mapping[str, Any]) -> None:
    """Check these options of a command.

    Raises:
        click.UsageError: both are given.
    """
    if given["kek_file"] and given["kek_command"]:
        raise click.UsageError("--kek-file and --kek-command are both given: leave one out")


def take_keks(given: dict[str, Any]) -> KekLocation:
    """Take both out of the options of a command.

    Raises:
        click.UsageError: as `check_keks`.
    """
    check_keks(given)
    from opstream_journal.keys.keks import KekLocation

    return KekLocation(file=given.pop("kek_file") or "", command=given.pop("kek_command") or "")
