"""What `opstream parked` does: shows what subscribers have parked, and has it tried again. Called by `parked`."""

from __future__ import annotations

import asyncio
import sys
from typing import Final

import click
import msgspec

from opstream_journal import JournalError, JournalUnavailable, Link, NotProvisioned, connect, parking
from opstream_journal.rpc import call
from opstream_schemas.subjects import retry_subject

from .console import Failure, printable

_TRY: Final = 60.0
"""Seconds that one try may take."""


class Parked(msgspec.Struct, frozen=True, kw_only=True):
    """`opstream parked`."""

    durable: str | None
    """None for all."""
    sequences: tuple[int, ...]
    """Empty for all of the durable."""
    is_retry: bool
    is_json: bool
    servers: tuple[str, ...]
    connect_timeout: float
    """Seconds."""


class _Line(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    durable: str
    sequence: int
    reason: str
    detail: str
    deliveries: int
    subject: str


def run(settings: Parked) -> None:
    """Print what is parked, or what came of trying it again.

    Raises:
        Failure: something stays parked, is not there, or the broker did not answer.
    """
    try:
        asyncio.run(_run(settings))
    except JournalError as error:
        raise Failure(str(error)) from error


async def _run(settings: Parked) -> None:
    link = await connect(settings.servers, "opstream-parked", connect_timeout=settings.connect_timeout)
    try:
        if not await parking.is_there(link):
            raise NotProvisioned("nothing was ever parked on this broker: its first subscriber makes the stream PARKED")
        if settings.is_retry:
            await _retry(link, str(settings.durable), settings.sequences)
        else:
            await _show(link, settings)
    finally:
        await link.close()


async def _show(link: Link, settings: Parked) -> None:
    is_json = settings.is_json or not sys.stdout.isatty()
    for durable, sequence in await parking.places(link, settings.durable):
        if settings.sequences and sequence not in settings.sequences:
            continue
        found = await parking.find(link, durable, sequence)
        if found is None:
            continue  # somebody was quicker
        if is_json:
            line = msgspec.convert(found, _Line, from_attributes=True)
            click.echo(msgspec.json.encode(line))
        else:
            click.echo(printable(f"{durable} {sequence}  {found.reason}  {found.subject}  {found.detail}"))


async def _retry(link: Link, durable: str, sequences: tuple[int, ...]) -> None:
    wanted = sequences or [sequence for _, sequence in await parking.places(link, durable)]
    done = 0
    for sequence in wanted:
        answer = await _try(link, durable, sequence)
        click.echo(printable(f"{durable} {sequence}: {answer}"))
        done += answer == "done"
    if done < len(wanted):
        raise Failure(f"{len(wanted) - done} of {len(wanted)} were not handled")


async def _try(link: Link, durable: str, sequence: int) -> str:
    try:
        answer = await call(link, retry_subject(durable), str(sequence).encode(), timeout=_TRY)
    except JournalUnavailable as error:
        if error.maybe_stored or not link.is_up:
            raise
        raise Failure(f"no subscriber {durable!r} is running: start it, then try again") from error
    return answer.data.decode(errors="replace")
