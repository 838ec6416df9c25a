"""Settings of the projector. The code that starts the process reads them once."""

from __future__ import annotations

import msgspec

from opstream_index.location import IndexLocation
from opstream_payloads.location import StoreLocation
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How one projector process works."""

    servers: tuple[str, ...]
    """NATS URLs of one cluster."""
    credentials: BrokerCredentials = NO_CREDENTIALS
    """Of the login at the broker; empty for those of the URLs, if any."""
    index: IndexLocation | None = None
    """The index to write; None for none."""
    payload_store: StoreLocation = StoreLocation()
    """Where payloads are; by default on the broker."""
    health_port: int = 0
    """TCP port for /healthz, /readyz and /metrics; 0 for none."""
    health_host: str = ""
    """Address to serve them on. Empty: probes from everywhere, since they come from other hosts, and /metrics for this
    machine only."""
    connect_timeout: float = 30.0
    """Seconds to wait for the broker at startup: longer than a restart of the broker takes."""
