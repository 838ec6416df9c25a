"""Settings of the API, read once by whoever starts it (the `opstream` command, a test)."""

from __future__ import annotations

import msgspec

from opstream_journal.provisioning.topology import BODY_LIMIT

from .http.callback_header import CallbackPolicy
from .http.caller_identity import Network


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How one API process works."""

    servers: tuple[str, ...]
    """NATS URLs of one cluster."""
    host: str = "127.0.0.1"
    """Address to listen on: this machine only, since there is no authentication yet."""
    port: int = 8080
    """TCP port to listen on; 0 takes a free one."""
    public_url: str = ""
    """Base of the URLs in `Operation-Location`, as clients reach this service through a proxy; empty: the scheme and
    `Host` of each request. Behind a proxy that rewrites `Host`, clients can't follow the answers without it."""
    body_limit: int = BODY_LIMIT
    """Bytes of a submit's body: large enough for a list of a thousand files, small enough for any broker's default
    `max_payload`. The journal must take 16 KiB more, which is checked at the start."""
    trusted_proxies: tuple[Network, ...] = ()
    """Peers whose word is taken for who asks and from where (ADR 0023). Whoever can connect from one of these addresses
    can ask in anybody's name."""
    identity_header: str = ""
    """Header in which those name the caller; empty for none."""
    client_id_header: str = ""
    """Header in which those name the application; empty for none."""
    callbacks: CallbackPolicy = CallbackPolicy()
    """Which `Operation-Callback` is taken: none, unless the operator allows hosts."""
    connect_timeout: float = 30.0
    """Seconds to wait for the broker at the start: longer than a broker restart, shorter than people's patience."""
