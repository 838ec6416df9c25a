"""Settings of the projector. The code that starts the process reads them once."""

from __future__ import annotations

import msgspec

from opstream_journal.runtime.health import ALL_ADDRESSES
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How one projector process works."""

    servers: tuple[str, ...]
    """NATS URLs of one cluster."""
    credentials: BrokerCredentials = NO_CREDENTIALS
    """Of the login at the broker; empty for those of the URLs, if any."""
    health_port: int = 0
    """TCP port for /healthz and /readyz; 0 for none."""
    health_host: str = ALL_ADDRESSES
    """Address to serve them on. The default is all, since probes come from other hosts."""
    connect_timeout: float = 30.0
    """Seconds to wait for the broker at startup: longer than a restart of the broker takes."""
