"""Checks of the servers one by one: does each answer, is its certificate accepted, and when does that end? Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from opstream_schemas.text import format_count

from .monitoring_port import Monitored
from .server_look import ServerLook
from .system_findings import Level, SystemFinding

CERTIFICATE_DAYS: Final = 30
"""Days before the end of a certificate at which it is a finding."""

_RENEW: Final = "put a new one in its place: services read it at each connect, the broker at a reload"


def check_servers(looks: Sequence[ServerLook], now: datetime) -> Iterator[SystemFinding]:
    """Check each server of the cluster, as a client meets it. Without TLS there are no certificates."""
    for one in looks:
        if one.silence:
            yield _silent(one)
        elif one.ends_at is not None and (not one.refusal or one.ends_at <= now):
            yield _check_end(f"the certificate of {_named(one)}{_subject(one)}", one.ends_at, now)
        elif one.refusal:
            what, _, step = one.refusal.partition(": ")
            until = f", valid until {one.ends_at:%Y-%m-%d}" if one.ends_at is not None else ""
            yield SystemFinding(
                name="CertificateRefused" if one.ends_at is not None else "TlsFails",
                level=Level.CRITICAL,
                message=f"{what}{_subject(one)}{until}; services connect to another server, while there is one",
                next_step=step,
            )
    if looks and not any(one.silence or one.refusal for one in looks):
        shown = ", ".join(_named(one) for one in looks)
        yield SystemFinding(
            name="Servers",
            level=Level.OK,
            message=f"{format_count(len(looks), 'server answers', 'servers answer')}: {shown}",
        )


def check_certificates(ends: Mapping[str, datetime], now: datetime) -> Iterator[SystemFinding]:
    """Check when certificates end, by whose they are."""
    for whose, end in ends.items():
        yield _check_end(whose, end, now)


def route_ends(monitored: Sequence[Monitored]) -> dict[str, datetime]:
    """Return when the certificates end that servers show each other, where they have one of their own for that.

    With one that has ended, a server comes back to the cluster no more. Clients don't see it; the monitoring port does.
    """
    ends = {}
    for one in monitored:
        routes = (one.varz.get("cluster") or {}).get("tls_cert_not_after")
        if routes and routes != one.varz.get("tls_cert_not_after"):
            ends[f"the certificate for the routes of {one.url}"] = datetime.fromisoformat(routes)
    return ends


def _check_end(whose: str, end: datetime, now: datetime) -> SystemFinding:
    left = end - now
    if left > timedelta(days=CERTIFICATE_DAYS):
        return SystemFinding(name="Certificate", level=Level.OK, message=f"{whose} is valid until {end:%Y-%m-%d}")
    has_ended = left <= timedelta(0)
    return SystemFinding(
        name="CertificateEnds",
        level=Level.CRITICAL if has_ended else Level.WARNING,
        message=f"{whose} {'has ended' if has_ended else 'ends'} on {end:%Y-%m-%d %H:%M} UTC; no connection is made "
        "after that",
        next_step=_RENEW,
    )


def _silent(look: ServerLook) -> SystemFinding:
    if look.is_given:
        return SystemFinding(
            name="ServerUnreachable",
            level=Level.WARNING,
            message=f"the server at {look.url} does not answer: {look.silence}",
            next_step="start nats-server there, or look at its machine and the network to it; if there is no such "
            "server any more, take it out of --nats of all services",
        )
    return SystemFinding(
        name="ServerUnreachable",
        level=Level.NOTE,
        message=f"the cluster names a server at {look.url}, which does not answer from here: {look.silence}",
        next_step="see whether it runs; if services can reach it and only this machine can't, all is well",
    )


def _named(look: ServerLook) -> str:
    return f"{look.name} ({look.url})" if look.name else look.url


def _subject(look: ServerLook) -> str:
    return f" [{look.subject}]" if look.subject else ""
