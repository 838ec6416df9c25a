"""`opstream hub`: api, projector and webhooks in one process."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import click
import msgspec

from opstream.cli.options import access as access_options
from opstream.cli.options import common as common_options
from opstream.cli.options import jwt as jwt_options
from opstream.cli.options import login as login_options
from opstream.cli.options import proxy as proxy_options
from opstream.cli.options import webhooks as webhook_options
from opstream.cli.options.option import Decorator, option
from opstream.cli.options.stores import index_option, max_upload_option, payload_store_option
from opstream.cli.service_process import prepare_process, run_service
from opstream.cli.tracing_session import tracing_session
from opstream.local.system_commands import JOINT_SERVICES
from opstream_schemas.traces.tracer import Tracer


def _health_port_option(service: str) -> Decorator[Any]:
    return option(
        f"--{service}-health-port",
        variable=f"{service.upper()}_HEALTH_PORT",
        type=click.IntRange(0, 65_535),
        default=0,
        metavar="PORT",
        help=f"Serve /healthz, /readyz and /metrics of the {service} on this port; 0 for none.",
    )


def _renamed(service: str) -> dict[str, str]:
    """What the service's errors advise, and what does the same here."""
    return {
        "--health-port": f"--{service}-health-port",
        "give --nats-nkey the key of that role": "give --nats-nkeys a folder with the keys of all three",
    }


_API_OPTIONS: Final = (
    "host",
    "port",
    "allowed_hosts",
    "allowed_origins",
    "cors_origins",
    "auth",
    "auth_keys_file",
    "caller_requests",
    "caller_open_operations",
    "refuse_unserved_after",
    "jwt",
    "trusted_proxies",
    "identity_header",
    "client_id_header",
    "has_request_log",
    "index",
    "payload_store",
    "upload_limit",
    "keks",
)
"""Options whose names are those of the API's settings."""
_api_health_port_option: Final = _health_port_option("api")
_projector_health_port_option: Final = _health_port_option("projector")
_webhooks_health_port_option: Final = _health_port_option("webhooks")


@click.command
@common_options.nats_option
@login_options.nkeys_option
@index_option
@payload_store_option
@common_options.kek_options
@common_options.host_option
@common_options.port_option
@common_options.public_url_option
@common_options.max_body_option()
@max_upload_option
@common_options.refuse_unserved_option
@access_options.access_options
@jwt_options.jwt_options
@proxy_options.proxy_options
@webhook_options.config_option
@webhook_options.callback_host_option
@webhook_options.callback_secret_option
@webhook_options.allow_private_option
@webhook_options.allow_http_option
@_api_health_port_option
@_projector_health_port_option
@_webhooks_health_port_option
@common_options.health_host_option
@common_options.connect_timeout_option
@common_options.log_level_option
@common_options.log_format_option
@common_options.otel_option
@common_options.request_log_option
def hub(**given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Run api, projector and webhooks in one process, which takes half of the memory that three take.

    For a small installation: beside it only runners are needed. 'opstream up' starts it, too. Everything else is as if
    each ran alone: the API has its probes on --port, the others have theirs on ports of their own, where the /metrics
    of each are, too, and each line of the log begins with the name of its service. If one of them can't do its job, all
    end. It needs a provisioned broker. Where each role has a login of its own, --nats-nkeys names those of all three.

    \b
    Example:
      opstream hub --nats nats://n1:4222 --host 0.0.0.0 --auth keys --public-url https://api.example.com
    """
    access_options.check_access(given)
    logins = login_options.credentials_of_roles(given["credentials"], given["nkeys"], JOINT_SERVICES)
    given["keks"] = common_options.take_keks(given)
    given["jwt"] = jwt_options.take_jwt_settings(given)
    proxy_options.check_headers_trusted(
        given["trusted_proxies"], identity_header=given["identity_header"], client_id_header=given["client_id_header"]
    )
    proxy_options.check_cors_origins(
        given["cors_origins"], identity_header=given["identity_header"], is_authenticated=bool(given["auth"])
    )
    prepare_process(given["log_level"], given["log_format"], "hub")
    webhook_options.check_config(given)
    import uvloop

    import opstream_api.main as api
    import opstream_api.settings as api_settings
    import opstream_projector.main as projector
    import opstream_projector.settings as projector_settings
    import opstream_webhooks.main as webhooks
    import opstream_webhooks.settings as webhooks_settings
    from opstream.cli.joint_process import JointService, serve_together
    from opstream_api.access.keys.key_file import InvalidKeyFile
    from opstream_index.errors import IndexFault
    from opstream_payloads.errors import PayloadError
    from opstream_schemas.errors import InvalidKek
    from opstream_webhooks.config import ReloadableConfig

    common = {name: given[name] for name in ("servers", "connect_timeout")}
    health = {**common, "health_host": given["health_host"]}
    of_api = api_settings.Settings(
        **health,
        credentials=logins["api"],
        health_port=given["api_health_port"],
        **{name: given[name] for name in _API_OPTIONS},
        public_url=given["public_url"] or "",
        body_limit=given["max_body"],
        callbacks=webhook_options.callback_policy(dict(given)),
    )
    of_projector = projector_settings.Settings(
        **health,
        credentials=logins["projector"],
        health_port=given["projector_health_port"],
        index=given["index"],
        payload_store=given["payload_store"],
    )
    of_webhooks = webhooks_settings.Settings(
        **health,
        credentials=logins["webhooks"],
        health_port=given["webhooks_health_port"],
        source=webhook_options.config_source(given),
        allowed_networks=given["networks"],
    )

    def run(tracing: Tracer) -> None:
        config = ReloadableConfig(of_webhooks.source)
        services = (
            JointService(
                "api",
                partial(api.serve, msgspec.structs.replace(of_api, tracing=tracing)),
                renamed=_renamed("api"),
            ),
            JointService(
                "projector",
                partial(projector.serve, of_projector),
                renamed=_renamed("projector"),
            ),
            JointService(
                "webhooks",
                partial(webhooks.serve, msgspec.structs.replace(of_webhooks, tracing=tracing), config),
                on_hangup=config.reload,
                renamed=_renamed("webhooks"),
            ),
        )
        uvloop.run(serve_together(services))

    with tracing_session("hub", is_traced=given["is_traced"]) as tracing:
        run_service(partial(run, tracing), known=(InvalidKeyFile, IndexFault, InvalidKek, PayloadError))
