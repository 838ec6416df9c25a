"""What a server says of itself on its monitoring port, which a client of JetStream can't see (`/varz`)."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from opstream_journal.runtime.broker_monitor import clock_lead

_TIMEOUT: Final = 5.0
_MOST: Final = 4 * 1024 * 1024
"""Bytes of an answer that are read."""


class MonitoringUnreachable(Exception):
    """A monitoring port does not answer as nats-server does. The message says which, and why."""


class Monitored(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of one server."""

    url: str
    varz: Mapping[str, Any]
    clock_lead: timedelta
    """How much this machine's clock is ahead of the server's."""


def read_monitoring(url: str) -> Monitored:
    """Ask one server.

    Args:
        url: `http://HOST:8222`, without a path.

    Raises:
        MonitoringUnreachable: it does not answer, or it is no nats-server.
    """
    began = datetime.now(UTC)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(
            f"{url.rstrip('/')}/varz", timeout=_TIMEOUT
        ) as response:  # an http(s) URL, as the option checks
            varz = msgspec.json.decode(response.read(_MOST), type=dict[str, Any])
        there = datetime.fromisoformat(varz["now"])
    except (OSError, urllib.error.URLError, msgspec.MsgspecError, KeyError, ValueError) as error:
        raise MonitoringUnreachable(f"{url} does not answer as the monitoring port of nats-server: {error}") from error
    return Monitored(url=url, varz=varz, clock_lead=clock_lead(began, datetime.now(UTC), there))
