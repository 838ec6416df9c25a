"""The entry of an action in the catalog: what the API needs to route, validate and document it; and its control."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from .events import Instant
from .names import Kind

DAY_SECONDS: Final = 86_400.0
"""Seconds."""
MAX_PAUSE_SECONDS: Final = 3_650 * 86_400
"""The longest time after which a pause of an action may end by itself."""
MAX_PAUSE_REASON: Final = 500
"""Characters of an operator's reason."""


class Policy(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The options of an action: how it runs, and how long its status is kept. Times in seconds."""

    lease: float = 30.0
    """Silence of an attempt after which another runner takes over; the consumer's ack_wait."""
    max_attempts: int = 5
    """Counted attempts before the operation fails, including those that were lost with their runner."""
    retry_after: int = 1
    """Whole seconds that a client should wait between polls (header `Retry-After`)."""
    timeout: float = 0.0
    """Limit of one attempt; 0 for none. An attempt that takes longer fails, and counts."""
    backoff: float = 1.0
    """Delay before the second attempt; doubled before each further one."""
    backoff_max: float = 60.0
    """The longest delay between two attempts."""
    deadline: float = DAY_SECONDS
    """Time from the request after which the operation fails, at whatever stage it is."""
    retention: float = DAY_SECONDS
    """Time for which the status stays readable after the end; at least 24 hours (docs/contract.md)."""
    retention_failed: float = 0.0
    """The same for an operation that failed; 0 means as `retention`."""
    retention_canceled: float = 0.0
    """The same for an operation that was canceled; 0 means as `retention`."""
    cancel_grace: float = 30.0
    """Time that a handler has to clean up after it was canceled."""
    clean_up: bool = False
    """True if after a cancel attempts follow until the handler's clean-up has ended."""
    isolation: str = "none"
    """Where a handler runs: "none" in the runner, "process" in a process of its own. Only runners read it, so a newer
    word does not disturb the API."""
    max_concurrency: int = 0
    """Attempts at once over all runners; 0 for as many as they have slots. The consumer's max_ack_pending."""
    exclusive: str = ""
    """"resource" lets one operation run at a time for each resource id; empty for any number."""
    exclusive_group: str = ""
    """Actions of the same group also exclude each other; empty for the action alone."""
    on_conflict: str = "queue"
    """What a request does while the resource is locked: "queue" waits, "reject" fails, "replace" cancels the owner."""
    rate: str = ""
    """Limit of the attempts that start per unit of time, such as `100/m` (s, m, h or d); empty for none."""
    priority: str = ""
    """The `Priority` of requests that name none; empty for an action without priorities."""
    confidential: bool = False
    """What its operations are about is sealed before it is stored, and can be erased (docs/adr/0076)."""

    def served_queue(self, queue: str) -> str:
        """Return the further queue of an operation (`Operation.queue`), if runners of the action look into it.

        Otherwise, as after its author has taken the priorities away, return empty: the queue that each action has.
        """
        return queue if self.priority else ""

    @property
    def longest_retention(self) -> float:
        """Return the longest of the three retentions, in seconds."""
        return max(self.retention, self.retention_failed, self.retention_canceled)


class ActionSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One entry of the bucket `actions`, as JSON."""

    resource: str
    action: str
    summary: str
    action_version: int
    """A lower version never replaces a higher one."""
    input_schema: dict[str, Any]
    """JSON Schema 2020-12, every object closed."""
    result_schema: dict[str, Any]
    policy: Policy = Policy()
    schema_format: int = 0
    """How opstream writes types as schemas. It changes with opstream, so that schemas of two releases are not taken for
    a change of a type; 0 of 0.5.0 and earlier."""

    @property
    def kind(self) -> Kind:
        """Return the resource and action."""
        return Kind(self.resource, self.action)

    def changed_schemas(self, before: ActionSpec) -> list[str]:
        """Return which of its schemas, `input` and `result`, have another shape than those of an earlier entry.

        Texts for people don't count.
        """
        pairs = {
            "input": (before.input_schema, self.input_schema),
            "result": (before.result_schema, self.result_schema),
        }
        return [name for name, (old, new) in pairs.items() if _shape(old) != _shape(new)]

    @property
    def lock_scope(self) -> str:
        """Return the part of the lock's key that names the actions which share it; empty for a non-exclusive action."""
        if not self.policy.exclusive:
            return ""
        group = self.policy.exclusive_group
        return f"group.{group}" if group else f"action.{self.resource}.{self.action}"


_TEXTS: Final = frozenset({"title", "description", "examples"})
_MAPS: Final = frozenset({"properties", "patternProperties", "$defs"})
"""Keywords whose members have names of the author's, which may be those of other keywords."""


def _shape(schema: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a JSON Schema without its texts for people."""
    if isinstance(schema, list):
        return [_shape(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: {key: _shape(value) for key, value in part.items()}
        if name in _MAPS and isinstance(part, dict)
        else (part if name in {"const", "enum", "default"} else _shape(part))
        for name, part in schema.items()
        if name not in _TEXTS
    }


class ActionPause(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """That no attempt of an action begins. The broker enforces it; this says who wanted it, and why (docs/adr/0064)."""

    since: Instant | None = None
    """None for a pause that was not made by opstream, as by `nats consumer pause`."""
    until: Instant | None = None
    """When it ends by itself; None for a pause that lasts until an operator ends it."""
    by: str = ""
    """The caller of a request, or the user and host of a command."""
    reason: str = ""


class ActionWithdrawal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """That what was announced of an action does not count any more, until a runner announces it again."""

    at: Instant
    by: str = ""
    reason: str = ""
    revision: int
    """Stream sequence of the catalog's entry: that one, and those before it, are withdrawn."""


class ActionControl(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What operators decided about an action: the value of its key in the bucket `controls`."""

    pause: ActionPause | None = None
    """The pause that was made last. It says nothing of whether the action is paused: that is what the consumer says."""
    withdrawal: ActionWithdrawal | None = None
    """The last one; None for an action that was never withdrawn."""
