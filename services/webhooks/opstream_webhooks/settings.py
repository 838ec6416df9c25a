"""Settings of the webhooks service. The code that starts the process reads them once."""

from __future__ import annotations

import msgspec

from opstream_schemas.traces.tracer import NO_TRACING, Tracer
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials

from .address_guard import Network
from .config import ConfigSource


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How one webhooks process works."""

    servers: tuple[str, ...]
    """NATS URLs of one cluster."""
    credentials: BrokerCredentials = NO_CREDENTIALS
    """Of the login at the broker; empty for those of the URLs, if any."""
    source: ConfigSource
    """Where endpoints and secrets are read from, at startup and at each SIGHUP."""
    allowed_networks: tuple[Network, ...] = ()
    """Networks that may be called although they are not public. Anyone who may name a callback can reach them."""
    health_port: int = 0
    """TCP port for /healthz, /readyz and /metrics; 0 for none."""
    health_host: str = ""
    """Address to serve them on. Empty: probes from everywhere, since they come from other hosts, and /metrics for this
    machine only."""
    connect_timeout: float = 30.0
    """Seconds to wait for the broker at startup: longer than a restart of the broker takes."""
    tracing: Tracer = NO_TRACING
    """Makes the spans of this process."""
