"""What a runner announces about an action: all that the API needs to route, validate and document it."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from .names import Kind

DAY_SECONDS: Final = 86_400.0
"""Seconds."""


class Policy(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How an action is executed and kept. Times in seconds."""

    lease: float = 30.0
    """How long an attempt may be silent before another runner takes over; the consumer's ack_wait."""
    max_attempts: int = 5
    """Counted attempts, those that died with their runner included, before the operation fails."""
    retry_after: int = 1
    """Whole seconds that a client is told to wait between polls."""
    timeout: float = 0.0
    """Of one attempt; 0 for none. An attempt that takes longer has failed, and counts."""
    backoff: float = 1.0
    """Before the second attempt; doubled before each further one."""
    backoff_max: float = 60.0
    """The longest pause between two attempts."""
    deadline: float = DAY_SECONDS
    """From the request to the moment at which the operation fails, whatever it is doing then."""
    retention: float = DAY_SECONDS
    """How long the status stays readable after the end; at least 24 hours (docs/contract.md)."""
    retention_failed: float = 0.0
    """The same for an operation that failed; 0: as `retention`."""
    retention_canceled: float = 0.0
    """The same for an operation that was canceled; 0: as `retention`."""
    cancel_grace: float = 30.0
    """How long a handler may clean up after it was canceled."""
    isolation: str = "none"
    """Where a handler runs: "none" in the runner, "process" in a process of its own. Whoever does not run it need not
    know the word."""
    max_concurrency: int = 0
    """Attempts at once over the whole fleet; 0: as many as the runners have slots. The consumer's max_ack_pending."""
    exclusive: str = ""
    """"resource": at most one open operation of the action for each resource runs; empty: any number."""
    exclusive_group: str = ""
    """Actions with the same group exclude each other, too; empty: the action by itself."""
    on_conflict: str = "queue"
    """What a request finds while another holds the resource: "queue" waits, "reject" is refused, "replace" cancels."""
    rate: str = ""
    """How many attempts may begin in a time, `100/m` (s, m, h or d); empty: any number."""

    @property
    def longest_retention(self) -> float:
        """Seconds for which any status of the action may have to be readable after the end."""
        return max(self.retention, self.retention_failed, self.retention_canceled)


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

    @property
    def lock_scope(self) -> str:
        """What its operations hold while they are open, resource aside; empty for an action that excludes nothing."""
        if not self.policy.exclusive:
            return ""
        group = self.policy.exclusive_group
        return f"group.{group}" if group else f"action.{self.resource}.{self.action}"
