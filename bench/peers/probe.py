"""What the client process gets and returns: `benchmark` asks, `client` loads."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec


class Mode(enum.StrEnum):
    """How operations are submitted."""

    FIRST = "first"
    """One operation, repeated until it succeeds: the peer is ready then. Nothing is measured."""
    BURST = "burst"
    """All clients submit everything; then they read all results."""
    CLOSED = "closed"
    """Each client submits, waits for the result, and then takes the next operation."""
    ALONE = "alone"
    """One client, one operation at a time."""


MEASURED = (Mode.BURST, Mode.CLOSED, Mode.ALONE)


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """How a peer is asked over HTTP: a POST of `{"n": i}` that answers 202, and a GET for the result."""

    url: str
    """Without a path."""
    submit: str
    """Path of the POST."""
    read: str
    """Path of the GET; `{id}` stands for the operation."""
    id_member: str = "id"
    """Of the answer to the POST."""
    has_key: bool = False
    """True to send an idempotency key of its own with each POST."""
    read_headers: Mapping[str, str] = {}
    is_bare: bool = False
    """True if the answer to the GET is the result itself; otherwise it has the members `status` and `result`."""
    pending: int = 0
    """The status code of a GET that comes too early, if that is not 200."""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """The task."""

    route: Route
    mode: Mode
    operations: int
    clients: int = 1
    patience: float = 120.0
    """Seconds after which an operation without a result is an error."""


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    """The figures. Times in seconds."""

    operations: int
    seconds: float
    """From the first submit until the last result was read."""
    submit_seconds: float = 0.0
    """From the first submit to the last answer to one, in a burst."""
    polls: int
    """GETs."""
    cpu: float
    """Of the client."""
    submits: list[float]
    """How long each POST took."""
    totals: list[float] = []
    """From each POST to its result; not in a burst."""
