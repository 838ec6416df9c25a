"""The settings of one runner process."""

from __future__ import annotations

import msgspec

from opstream_journal.keys.keks import NO_KEKS, KekLocation
from opstream_journal.provisioning.topology import BODY_LIMIT
from opstream_payloads.location import StoreLocation
from opstream_schemas.traces.tracer import NO_TRACING, Tracer
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How one runner process works."""

    servers: tuple[str, ...]
    """NATS URLs of one cluster."""
    credentials: BrokerCredentials = NO_CREDENTIALS
    """Of the login at the broker; empty for those of the URLs, if any."""
    modules: tuple[str, ...]
    """Import paths of the modules whose actions this process offers."""
    concurrency: int = 32
    """How many attempts of each action this process runs at once. The action's consumer limits them over all runners.
    For handlers that use the processor, take about the number of cores."""
    drain: float = 10.0
    """Seconds that attempts have to end by themselves after SIGTERM: most are quick, so a deployment makes none run
    twice. The sender of the signal must wait 10 s longer before it kills the process."""
    health_port: int = 0
    """TCP port for /healthz, /readyz and /metrics; 0 for none."""
    health_host: str = ""
    """Address to serve them on. Empty: probes from everywhere, since they come from other hosts, and /metrics for this
    machine only."""
    result_limit: int = BODY_LIMIT
    """A result's maximum, in bytes of JSON; a larger one fails the operation. Above `INLINE_LIMIT` it is a payload."""
    payload_store: StoreLocation = StoreLocation()
    """Where payloads are; by default on the broker."""
    connect_timeout: float = 30.0
    """Seconds to wait for the broker at the start: longer than a broker restart, short enough to notice a mistake."""
    allows_schema_change: bool = False
    """Whether an action's types may differ from those that were announced as the same version."""
    keks: KekLocation = NO_KEKS
    """Where the key-encryption keys are; without them it offers no confidential action."""
    tracing: Tracer = NO_TRACING
    """Makes the spans of this process."""
