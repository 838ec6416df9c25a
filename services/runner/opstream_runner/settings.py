"""Settings of the runner, read once by whoever starts it (the `opstream` command, a test)."""

from __future__ import annotations

import msgspec

from opstream_journal.provisioning.topology import BODY_LIMIT


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How one runner process works."""

    servers: tuple[str, ...]
    """NATS URLs of one cluster."""
    modules: tuple[str, ...]
    """Import paths of the modules whose actions this process offers."""
    concurrency: int = 32
    """Attempts of one action that this process runs at once. More than the action's consumer allows over the whole
    fleet does not help; for handlers that use the processor, about the number of cores."""
    drain: float = 10.0
    """Seconds that attempts have to end by themselves after SIGTERM: most are quick, and nothing is done twice for a
    deployment. Whoever sends the signal must wait 10 s longer before it kills."""
    health_port: int = 0
    """TCP port for /healthz and /readyz; 0 for none."""
    result_limit: int = BODY_LIMIT
    """Bytes of JSON that a result may have; a larger one fails the operation. The journal must take 16 KiB more."""
    connect_timeout: float = 30.0
    """Seconds to wait for the broker at the start: longer than a broker restart, shorter than people's patience."""
