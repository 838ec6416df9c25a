"""The table of permissions as docs/broker-access.md shows it."""

from __future__ import annotations

from typing import Final

from opstream_schemas.broker_access.permissions import ActionAccess, Role, Way, permissions
from opstream_schemas.names import Kind

_ACTION: Final = ActionAccess(Kind("RESOURCE", "ACTION"), "SCOPE", has_priorities=True)
_HEAD: Final = ("| role | may | subjects | what for |", "|---|---|---|---|")


def access_table() -> str:
    """Return the table in Markdown, with placeholders for an action, the scope of its lock, and a durable."""
    lines = list(_HEAD)
    for role in Role:
        rows: dict[tuple[Way, str], list[str]] = {}
        for grant in permissions(role, actions=[_ACTION], durable="NAME"):
            rows.setdefault((grant.way, grant.why), []).append(f"`{grant.subject}`")
        lines += [f"| {role} | {way} | {', '.join(found)} | {why} |" for (way, why), found in rows.items()]
    return "\n".join(lines)
