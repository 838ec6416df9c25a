"""`opstream broker-config`: writes the configuration of a broker in which each role may do only what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from opstream.cli.options import common as common_options
from opstream.cli.options.address_types import check_host
from opstream.cli.options.option import checked_list, option
from opstream.cli.service_process import allow_local_modules
from opstream.terminal.console import CommandError, printable
from opstream_schemas.names import check_durable_name

if TYPE_CHECKING:
    from opstream.broker_setup.server_config import ServerAddress
    from opstream.broker_setup.setup_folder import SetupRequest
    from opstream_schemas.broker_access.permissions import ActionAccess

_CLUSTER: Final = 3


def _check_hosts(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(check_host(ctx, param, host.strip()) for text in value for host in text.split(","))


@click.command
@option(
    "--out",
    variable="OUT",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="The folder to write, which is made; what exists in it is never overwritten.",
)
@option(
    "--servers",
    "count",
    variable="SERVERS",
    type=click.Choice(["1", "3"]),
    default="1",
    help="One server, or a cluster of three.",
)
@option(
    "--server-host",
    "hosts",
    variable="SERVER_HOST",
    multiple=True,
    default=("127.0.0.1",),
    metavar="HOST",
    callback=_check_hosts,
    help="The address on which a server listens and others reach it; repeat it for each server of a cluster. A single "
    "one for three servers means one machine, with ports one after the other.",
)
@common_options.nats_port_option
@option(
    "--cluster-port",
    variable="CLUSTER_PORT",
    type=click.IntRange(1, 65_535),
    default=6222,
    metavar="PORT",
    help="The port on which servers of a cluster reach each other.",
)
@option(
    "--monitoring-port",
    variable="MONITORING_PORT",
    type=click.IntRange(0, 65_535),
    default=0,
    metavar="PORT",
    help="The port on which each server shows its state, for 'opstream doctor --monitoring'; 0 for none. It asks for "
    "no login: let only your operators' machines reach it.",
)
@common_options.actions_option()
@option(
    "--subscriber",
    "durables",
    variable="SUBSCRIBER",
    multiple=True,
    metavar="NAME",
    callback=checked_list(check_durable_name),
    help="The durable of a subscriber, which gets a login of its own; may be repeated.",
)
@option(
    "--store-dir",
    "store",
    variable="STORE_DIR",
    metavar="DIR",
    help="The folder in which a server stores; {name} stands for the server's name. Without it, store/{name} in --out.",
)
@option(
    "--tls-cert",
    "cert_file",
    variable="TLS_CERT",
    metavar="FILE",
    help="The certificate (PEM) of each server, as it lies there; {name} stands for the server's name.",
)
@option("--tls-key", "key_file", variable="TLS_KEY", metavar="FILE", help="Its private key (PEM).")
@option(
    "--tls-ca",
    "ca_file",
    variable="TLS_CA",
    metavar="FILE",
    help="The certificates (PEM) of those who sign the servers' certificates.",
)
@option(
    "--test-certificates",
    "has_test_certificates",
    variable="TEST_CERTIFICATES",
    is_flag=True,
    help="Make an authority and certificates for a year, for trials; in production use your own.",
)
@option(
    "--no-tls",
    "is_plain",
    variable="NO_TLS",
    is_flag=True,
    help="Speak without TLS, for a network that nobody else can read or change.",
)
@option(
    "--keys",
    variable="KEYS",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Use the keys in this folder again, such as 'keys' of an earlier --out; those that are missing are made.",
)
def broker_config(**given: Any) -> None:  # noqa: ANN401 - the options above
    """Write the configuration of a broker with a login for each role, which may do only what the role needs.

    The folder has a file for each server (for 'nats-server -c'), the accounts with their permissions, and a key for
    each of admin, api, runner, projector, webhooks, auditor and each subscriber, for --nats-nkey. Run it again, with
    another --out and --keys, when actions or subscribers are added; then reload the servers.

    \b
    Example:
      opstream broker-config --out broker --actions shop.orders --test-certificates
      nats-server -c broker/n1.conf
      opstream provision --nats-nkey broker/keys/admin.nk --nats-tls-ca broker/tls/ca.pem --actions shop.orders
    """
    from opstream.broker_setup.setup_folder import write_setup
    from opstream_journal.errors import InvalidCredentials

    tls = {name: given[name] for name in ("cert_file", "key_file", "ca_file") if given[name]}
    _check_tls(tls, has_test_certificates=given["has_test_certificates"], is_plain=given["is_plain"])
    request = _request(given, tls)
    try:
        written = write_setup(request)
    except FileExistsError as error:
        raise CommandError(f"{printable(str(error.filename))} exists: choose another folder with --out") from error
    except InvalidCredentials as error:
        raise CommandError(printable(str(error))) from error
    for path in written:
        click.echo(f"made       {path}")
    for line in _next_steps(request, written):
        click.echo(line, err=True)


def _request(given: dict[str, Any], tls: dict[str, str]) -> SetupRequest:
    from opstream.broker_setup.setup_folder import SetupRequest

    folder = given["out"].absolute()
    return SetupRequest(
        folder=folder,
        servers=_addresses(given),
        actions=_actions(given["modules"]),
        durables=tuple(dict.fromkeys(given["durables"])),
        store=given["store"] or str(folder / "store" / "{name}"),
        tls=tls or None,
        has_test_certificates=given["has_test_certificates"],
        keys=given["keys"],
    )


def _check_tls(tls: dict[str, str], *, has_test_certificates: bool, is_plain: bool) -> None:
    if [bool(tls), has_test_certificates, is_plain].count(True) != 1:
        raise click.UsageError(
            "choose one: --tls-cert, --tls-key and --tls-ca for your own certificates, --test-certificates for a "
            "trial, or --no-tls"
        )
    if tls and len(tls) < 3:
        raise click.UsageError("--tls-cert, --tls-key and --tls-ca belong together: write all three")


def _addresses(given: dict[str, Any]) -> tuple[ServerAddress, ...]:
    from opstream.broker_setup.server_config import ServerAddress

    hosts, count, monitoring = given["hosts"], int(given["count"]), given["monitoring_port"]
    if len(hosts) not in {1, count}:
        raise click.UsageError(f"--server-host: there are {len(hosts)} for --servers {count}: write one for each")
    if not given["nats_port"]:
        raise click.UsageError("--nats-port: write the port, since clients are started with it")
    is_one_machine = len(hosts) < count
    return tuple(
        ServerAddress(
            name=f"n{number + 1}",
            host=hosts[0] if is_one_machine else hosts[number],
            port=given["nats_port"] + number * is_one_machine,
            cluster_port=given["cluster_port"] + number * is_one_machine,
            monitoring_port=monitoring and monitoring + number * is_one_machine,
        )
        for number in range(count)
    )


def _actions(modules: tuple[str, ...]) -> tuple[ActionAccess, ...]:
    allow_local_modules()
    from opstream_runner import InvalidAction
    from opstream_runner.authoring.action_modules import import_notice, load_actions
    from opstream_schemas.broker_access.permissions import access_of

    try:
        specs = [action.spec for action in load_actions(modules, importing=import_notice)]
    except InvalidAction as error:
        raise CommandError(str(error)) from error
    return tuple(access_of(spec) for spec in specs)


def _next_steps(request: SetupRequest, written: list[Path]) -> list[str]:
    from opstream.broker_setup.setup_folder import KEYS_FOLDER

    one = len(request.servers) == 1
    where = "" if one else " on each machine with its file"
    keys = request.folder / KEYS_FOLDER
    authority = next((path for path in written if path.name == "ca.pem"), None) or (request.tls or {}).get("ca_file")
    ca = f" --nats-tls-ca {authority}" if authority else ""
    nats = " ".join(f"--nats nats://{server.host}:{server.port}" for server in request.servers)
    replicas = "" if one else f" --replicas {_CLUSTER}"
    return [
        "next:",
        f"  nats-server -c {request.folder}/{request.servers[0].name}.conf{where}",
        f"  opstream provision {nats} --nats-nkey {keys}/admin.nk{ca}{replicas} --actions ...",
        f"  opstream api {nats} --nats-nkey {keys}/api.nk{ca}   # runner, projector and webhooks likewise",
    ]
