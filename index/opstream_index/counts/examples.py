"""The questions of docs/list.md that a count answers. Tests hold page, query plans and benchmark to them."""

from __future__ import annotations

from typing import Final

import msgspec


class CountExample(msgspec.Struct, frozen=True):
    """A question, and the query that answers it."""

    question: str
    filter: str = ""
    by: str = ""


COUNT_EXAMPLES: Final = (
    CountExample("How do all operations stand?", "", "status"),
    CountExample("What is open, by action?", "status in ('NotStarted', 'Running')", "kind"),
    CountExample("Which action is slowest today?", "createdAt ge 2026-11-30T00:00:00Z", "kind"),
    CountExample(
        "What failed in the last hour, with which code?",
        "status eq 'Failed' and finishedAt ge 2026-11-30T07:00:00Z",
        "error/code",
    ),
    CountExample("Which action fails most today?", "status eq 'Failed' and createdAt ge 2026-11-30T00:00:00Z", "kind"),
    CountExample("Who submitted most today?", "createdAt ge 2026-11-30T00:00:00Z", "caller"),
    CountExample("How many failures has each team?", "status eq 'Failed'", "label/team"),
    CountExample("Which books need retries?", "kind eq 'book:print' and attempt gt 1", "resourceId"),
    CountExample("How many failures speak of a full disk?", "contains(message, 'disk full')"),
    CountExample("How did the operations of an order end?", "label/order eq 'o-333000'", "status"),
)
