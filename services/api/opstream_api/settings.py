"""Settings of the API. The `opstream` command and tests build them; nothing here reads the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from opstream_index.location import IndexLocation
from opstream_journal.keys.keks import NO_KEKS, KekLocation
from opstream_journal.provisioning.topology import BODY_LIMIT
from opstream_payloads.documents import UPLOAD_LIMIT
from opstream_payloads.location import StoreLocation
from opstream_schemas.traces.tracer import NO_TRACING, Tracer
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials

from .access.tokens.jwt_settings import JwtSettings
from .http.callback_header import CallbackPolicy
from .http.caller_identity import Network

KEYS: Final = "keys"
"""API keys, as `auth`."""
JWT: Final = "jwt"
"""Bearer tokens of an identity provider, as `auth`."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one API process."""

    servers: tuple[str, ...]
    """NATS URLs of one cluster."""
    credentials: BrokerCredentials = NO_CREDENTIALS
    """Of the login at the broker; empty for those of the URLs, if any."""
    host: str = "127.0.0.1"
    """Address to listen on. The default is this machine only, since requests need no credentials by default."""
    port: int = 8080
    """TCP port to listen on; 0 for a free one."""
    public_url: str = ""
    """Base of the URLs in `Operation-Location`, as clients reach this service through a proxy. Empty: the scheme and
    `Host` of each request, which is wrong behind a proxy that rewrites `Host`."""
    allowed_hosts: tuple[str, ...] = ()
    """Hosts under which the service may be called; `*` for any. Empty: on a loopback address the names of this machine
    and the host of `public_url`, elsewhere any."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of web pages, other than its own, that may submit and cancel."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages that may also read answers, with CORS headers; `*` for any, which is safe only while no
    proxy logs callers in by something that browsers send by themselves."""
    body_limit: int = BODY_LIMIT
    """Bytes of a submit's body. Above `INLINE_LIMIT` it is stored as a payload."""
    upload_limit: int = UPLOAD_LIMIT
    """Bytes of a file that a client uploads before a submit."""
    auth: tuple[str, ...] = ()
    """What credentials requests need: `KEYS`, `JWT` or either. Empty for none, so only for an address that no other
    caller reaches."""
    auth_keys_file: Path | None = None
    """File with the records of API keys; None for those in the broker's bucket `access`."""
    jwt: JwtSettings | None = None
    """Which bearer tokens are taken; None for none."""
    caller_requests: str = ""
    """Requests that each caller may send, as `100/s`; empty for any number. It needs `auth`."""
    caller_open_operations: int = 0
    """Operations that each caller may have open; 0 for any number. It needs `auth`."""
    refuse_unserved_after: float = 0.0
    """Seconds without a runner after which submits of an action are refused; 0 for never."""
    trusted_proxies: tuple[Network, ...] = ()
    """Networks of the proxies that say who the caller is (ADR 0023). A client that can connect from one of these
    addresses can use any identity."""
    identity_header: str = ""
    """Header in which these proxies name the caller; empty for none."""
    client_id_header: str = ""
    """Header in which these proxies name the application; empty for none."""
    callbacks: CallbackPolicy = CallbackPolicy()
    """Which callback URLs a submit may name: none, unless the operator allows hosts."""
    index: IndexLocation | None = None
    """The index, which lists read; None for none."""
    payload_store: StoreLocation = StoreLocation()
    """Where payloads are; by default on the broker."""
    keks: KekLocation = NO_KEKS
    """Where the key-encryption keys are; without them it takes no confidential action."""
    has_request_log: bool = True
    """Write a line for each request."""
    health_port: int = 0
    """TCP port for /metrics, and for /healthz and /readyz besides; 0 for none. Clients need none of it."""
    health_host: str = ""
    """Address to serve them on. Empty: probes from everywhere, since they come from other hosts, and /metrics for this
    machine only."""
    connect_timeout: float = 30.0
    """Seconds to wait for the broker at the start, longer than a broker restart takes."""
    tracing: Tracer = NO_TRACING
    """Makes the spans of this process."""
