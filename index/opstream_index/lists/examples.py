"""The examples of docs/list.md: what operators ask for. Tests hold page, query plans and benchmark to them."""

from __future__ import annotations

from typing import Final

import msgspec


class ListExample(msgspec.Struct, frozen=True):
    """A question, and the query that answers it."""

    question: str
    filter: str = ""
    orderby: str = ""


EXAMPLES: Final = (
    ListExample("What came last?"),
    ListExample("What runs now?", "status eq 'Running'"),
    ListExample("What waits, the oldest first?", "status eq 'NotStarted'", "createdAt"),
    ListExample("What waits for its time?", "status eq 'NotStarted' and startAt ne null"),
    ListExample(
        "What has failed in the last hour?",
        "status eq 'Failed' and finishedAt ge 2026-11-30T07:00:00Z",
        "finishedAt desc",
    ),
    ListExample(
        "What failed yesterday of one action, but not for a timeout?",
        "kind eq 'book:upload-start' and status eq 'Failed' and error/code ne 'Timeout' and "
        "createdAt ge 2026-11-29T00:00:00Z and createdAt lt 2026-11-30T00:00:00Z",
    ),
    ListExample("Which failures speak of a full disk?", "status eq 'Failed' and contains(message, 'disk full')"),
    ListExample("What failed with these codes?", "error/code in ('Timeout', 503)"),
    ListExample("What happened to one book?", "resourceId eq '42'"),
    ListExample("What did one caller begin today?", "caller eq 'service-7' and createdAt ge 2026-11-30T00:00:00Z"),
    ListExample("What belongs to a team, and failed?", "label/team eq 'press' and status eq 'Failed'"),
    ListExample("What belongs to an order?", "label/order eq 'o-333000'"),
    ListExample(
        "Which uploads are not through yet?", "kind eq 'book:upload-start' and status in ('NotStarted', 'Running')"
    ),
    ListExample(
        "What needed more than three attempts this month?", "attempt gt 3 and createdAt ge 2026-11-01T00:00:00Z"
    ),
    ListExample("What of one action did not succeed?", "kind eq 'book:print' and not (status eq 'Succeeded')"),
    ListExample("What ended last?", "", "finishedAt desc"),
)
