"""Why a process can't connect, by server: each of a cluster may have a reason of its own.

nats-py goes from one server to the next, and keeps only the error of the last try.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from typing import Final

import nats.errors
from nats.aio.client import Client

from opstream_schemas.urls import PASSWORD_VARIABLE, TOKEN_VARIABLE, USER_VARIABLE, hide_credentials

from .secure_client import explain_tls_error, tried_server

_REFUSED_REGEX: Final = re.compile(r"authorization|authentication", re.IGNORECASE)
"""In the broker's error for a login that it refuses, has revoked, or that has expired."""


class ConnectFailures:
    """The error of each server, while a client tries one after the other.

    Args:
        servers: the URLs that the client was given.
        client: which tries them.
    """

    def __init__(self, servers: Sequence[str], client: Client) -> None:
        self._given = {_as_tried(one): hide_credentials(one) for one in servers}
        self._client = client
        self._errors: dict[str, Exception] = {}

    async def keep(self, error: Exception) -> None:
        """Keep the error of the server that the client tried last. It is the client's `error_cb`."""
        server = tried_server(self._client)
        known = self._errors.get(server)
        # The broker's reason is read only if it is faster than the end of the connection.
        if not isinstance(error, ConnectionError) or not isinstance(known, ssl.SSLError | nats.errors.Error):
            self._errors[server] = error

    @property
    def cause(self) -> Exception | None:
        """The error that says most; None if no server said anything."""
        told = [one for one in self._errors.values() if isinstance(one, ssl.SSLError | nats.errors.Error)]
        return next(iter([*told, *self._errors.values()]), None)

    def explain(self, seconds: float, remedy: str) -> str:
        """Return why no server can be used, each with its reason and the next step.

        Args:
            seconds: for which the client has tried.
            remedy: how to name another broker.
        """
        servers: dict[str, list[str]] = {}
        for one in dict.fromkeys([*self._given, *self._errors]):
            servers.setdefault(_reason(self._errors.get(one), "…"), []).append(one)
        silent = self._shown(servers.pop("", []))
        reasons = [_reason(self._errors[ours[0]], self._shown(ours)) for ours in servers.values()]
        if not reasons:
            return (
                f"no NATS broker answered at {silent} within {seconds:g} s: start one ('opstream broker') or {remedy}"
            )
        return "; ".join([*reasons, *([f"nothing answered at {silent} within {seconds:g} s"] if silent else [])])

    def _shown(self, servers: Sequence[str]) -> str:
        return ", ".join(self._given.get(one, one) for one in servers)


def _as_tried(url: str) -> str:
    """Return a URL as the client shows it: with a scheme and a port."""
    try:
        return hide_credentials(Client._parse_server_uri(url).geturl())  # noqa: SLF001 - it is how nats-py reads one
    except nats.errors.Error:
        return url


def _reason(error: Exception | None, where: str) -> str:
    """Return why a server can't be used; empty for one that says nothing."""
    if tls := explain_tls_error(error, where):
        return tls
    if not isinstance(error, nats.errors.Error):
        return ""
    if _REFUSED_REGEX.search(str(error)):
        return (
            f"the broker at {where} refuses the login ({error}): check --nats-creds, --nats-nkey, "
            f"{USER_VARIABLE} and {PASSWORD_VARIABLE}, or {TOKEN_VARIABLE} (of an EventsBroker its credentials)"
        )
    return f"the broker at {where} could not be used (the last try: {error})"
