"""`opstream api`: the service that serves HTTP."""

from __future__ import annotations

from typing import Any

import click

from opstream.cli.options import access as access_options
from opstream.cli.options import common as common_options
from opstream.cli.options import jwt as jwt_options
from opstream.cli.options import proxy as proxy_options
from opstream.cli.options import webhooks as webhook_options
from opstream.cli.options.stores import index_option, max_upload_option, payload_store_option
from opstream.cli.service_process import prepare_process, run_service
from opstream.cli.tracing_session import tracing_session


@click.command
@common_options.nats_option
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
@webhook_options.callback_host_option
@webhook_options.allow_http_option
@common_options.health_port_option
@common_options.health_host_option
@common_options.connect_timeout_option
@common_options.log_level_option
@common_options.log_format_option
@common_options.otel_option
@common_options.request_log_option
def api(*, log_level: str, log_format: str, public_url: str | None, max_body: int, **given: Any) -> None:  # noqa: ANN401
    """Serve HTTP: submit, status, /openapi.json, /asyncapi.json, /healthz and /readyz. Run as many as you like.

    It needs a provisioned broker, where it finds the actions that runners announce.

    \b
    Example:
      opstream api --nats nats://n1:4222 --host 0.0.0.0 --auth keys --public-url https://api.example.com
    """
    access_options.check_access(given)
    given["keks"] = common_options.take_keks(given)
    given["jwt"] = jwt_options.take_jwt_settings(given)
    proxy_options.check_headers_trusted(
        given["trusted_proxies"], identity_header=given["identity_header"], client_id_header=given["client_id_header"]
    )
    proxy_options.check_cors_origins(
        given["cors_origins"], identity_header=given["identity_header"], is_authenticated=bool(given["auth"])
    )
    prepare_process(log_level, log_format, "api")
    from opstream_api.access.keys.key_file import InvalidKeyFile
    from opstream_api.main import run
    from opstream_api.settings import Settings
    from opstream_index.errors import IndexFault
    from opstream_payloads.errors import PayloadError
    from opstream_schemas.errors import InvalidKek

    given["callbacks"] = webhook_options.callback_policy(given)
    del given["is_insecure"]  # only asked here
    with tracing_session("api", is_traced=given.pop("is_traced")) as tracing:
        run_service(
            lambda: run(Settings(public_url=public_url or "", body_limit=max_body, tracing=tracing, **given)),
            known=(InvalidKeyFile, IndexFault, InvalidKek, PayloadError),
        )
