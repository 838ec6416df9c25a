"""Which stream it is, and what of it there is now. Caller: `opstream verify --chain`."""

from __future__ import annotations

import msgspec

from .connection import Link
from .ordered_consumer import Edges, Limits, ask


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """A stream, as its leader has it."""

    name: str
    created: str
    """When it was made, as the broker writes it: it stays when a backup is restored, and differs when the stream was
    made anew."""
    max_age: float
    """Seconds after which messages expire; 0 for never."""
    first: int
    """Of a stream that holds nothing, the sequence that comes next."""
    last: int


async def identity(link: Link, stream: str) -> Identity:
    """Ask for a stream.

    Raises:
        NotProvisioned: there is no such stream.
        JournalUnavailable: no leader answered.
        RequestRefused: the broker refused.
    """
    info = await ask(link, stream, f"STREAM.INFO.{stream}")
    edges = info.state or Edges(1, 0, 0)
    return Identity(
        name=stream,
        created=info.created,
        max_age=(info.config or Limits()).max_age / 1e9,
        first=edges.first if edges.messages else edges.last + 1,
        last=edges.last,
    )
