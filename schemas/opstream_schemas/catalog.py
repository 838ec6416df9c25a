"""What a runner announces about an action: all that the API needs to route, validate and document it."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from .names import Kind

DAY: Final = 86_400.0
"""Seconds."""


class Policy(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How an action is executed and kept. Times in seconds."""

    lease: float = 30.0
    """How long an attempt may be silent before another runner takes over; the consumer's ack_wait."""
    max_attempts: int = 5
    """Counted attempts, those that died with their runner included, before the operation is `RunnerLost`."""
    retry_after: int = 1
    """Whole seconds that a client is told to wait between polls."""
    deadline: float = DAY
    """From the request to the latest moment at which an attempt may start."""
    retention: float = DAY
    """How long the status stays readable after the end; at least 24 hours (contract.md)."""
    cancel_grace: float = 30.0
    """How long a handler may clean up after it was canceled."""
    isolation: str = "none"
    """Where a handler runs: "none" in the runner, "process" in a process of its own. Whoever does not run it need not
    know the word."""


class ActionSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One entry of the bucket `actions`, JSON."""

    resource: str
    action: str
    summary: str
    action_version: int
    """A lower version never replaces a higher one."""
    input_schema: dict[str, Any]
    """JSON Schema 2020-12, every object closed."""
    result_schema: dict[str, Any]
    policy: Policy = Policy()

    @property
    def kind(self) -> Kind:
        """The resource and action."""
        return Kind(self.resource, self.action)
