"""`opstream provision`: connects, lets the journal make and compare, and says what came of it. Called by `cli`."""

from __future__ import annotations

import asyncio
from typing import Any

import click
import msgspec

from opstream.terminal.console import Failure
from opstream_journal import JournalError, connect
from opstream_journal.provisioning.archive import Archive, current_archive
from opstream_journal.provisioning.provision import RECREATE_HINT, Report, current_sizing, needed_age, provision
from opstream_journal.provisioning.topology import EVENT_OVERHEAD, SIZING_FIELDS, Sizing
from opstream_runner import InvalidAction
from opstream_schemas.action_spec import ActionSpec


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Which broker, and how it should be. None: as it is, or the default where there is nothing yet."""

    servers: tuple[str, ...]
    connect_timeout: float
    """Seconds."""
    replicas: int | None
    max_age: float | None
    """Seconds; 0 for ever."""
    max_bytes: int | None
    """-1 for no limit."""
    max_msg_size: int | None
    """-1 for no limit."""
    max_body: int | None
    """Bytes that the API accepts."""
    max_result: int | None
    """Bytes that a result may have."""
    modules: tuple[str, ...]
    """Whose actions' consumers are compared too."""
    is_archiving: bool
    """Whether there should be an archive; one that is there stays."""
    archive_max_age: float | None
    """Seconds; 0 for ever."""
    is_update: bool


def run(settings: Settings) -> None:
    """Make what is missing, compare the rest, print both.

    Raises:
        Failure: something still differs, the wishes contradict each other or the broker's `max_payload`, or the
            broker did not do it.
    """
    needed = _needed(settings)
    if settings.max_msg_size is not None and 0 <= settings.max_msg_size < needed:
        raise Failure(
            f"--max-msg-size of {settings.max_msg_size} bytes is too little for --max-body or --max-result, which need "
            f"16 KiB more than they allow: use {needed} or more, or lower them"
        )
    try:
        report = asyncio.run(_provision(settings))
    except (JournalError, InvalidAction) as error:
        raise Failure(str(error)) from error
    _tell(report)


async def _provision(settings: Settings) -> Report:
    specs = _specs(settings.modules)
    link = await connect(settings.servers, "opstream-provision", connect_timeout=settings.connect_timeout)
    try:
        _check_payload(settings, link.nc.max_payload)
        sizing = sizing_wanted(settings, await current_sizing(link) or Sizing(), specs)
        archive = archive_wanted(settings, await current_archive(link))
        return await provision(link, sizing, specs, archive=archive, is_update=settings.is_update)
    finally:
        await link.close()


def sizing_wanted(settings: Settings, current: Sizing, specs: list[ActionSpec]) -> Sizing:
    """What is asked for; where nothing is, what is there: what an operator chose earlier is no drift. It is more only
    where that would not do for the sizes and actions that are named."""
    chosen = {
        name: getattr(settings, name)
        for name in ("replicas", "max_age", "max_bytes", "max_msg_size")
        if getattr(settings, name) is not None
    }
    if 0 <= current.max_msg_size < _needed(settings):
        chosen.setdefault("max_msg_size", _needed(settings))
    if 0 < current.max_age < needed_age(specs):
        chosen.setdefault("max_age", needed_age(specs))
    return msgspec.structs.replace(current, **chosen)


def archive_wanted(settings: Settings, current: Archive | None) -> Archive | None:
    """The archive that is asked for or there; None for none.

    Raises:
        click.UsageError: it is asked how old something may become that nobody asked for.
    """
    if current is None and not settings.is_archiving:
        if settings.archive_max_age is not None:
            raise click.UsageError("--archive-max-age: the broker has no archive; add --archive to make it")
        return None
    max_age = settings.archive_max_age
    return (current or Archive()) if max_age is None else Archive(max_age=max_age)


def _check_payload(settings: Settings, most: int) -> None:
    if max(settings.max_msg_size or 0, _needed(settings)) > most:
        raise Failure(
            f"the broker takes no message above {most} bytes: raise max_payload in its configuration, or lower "
            "--max-body, --max-result or --max-msg-size (the first two need 16 KiB more than they allow)"
        )


def _needed(settings: Settings) -> int:
    largest = max(settings.max_body or 0, settings.max_result or 0)
    return largest + EVENT_OVERHEAD if largest else 0


def _specs(modules: tuple[str, ...]) -> list[ActionSpec]:
    if not modules:
        return []
    from opstream_runner.main import load_actions

    return [action.spec for action in load_actions(modules)]


def _tell(report: Report) -> None:
    _print("made", report.made)
    _print("put right", report.updated)
    _print("differs", report.drift)
    if not report.drift:
        if not report.made and not report.updated:
            click.echo("nothing to do: the broker has everything")
        return
    unsafe = [one for one in report.drift if not one.is_safe]
    hints = []
    if len(unsafe) < len(report.drift):
        hints.append("run it again with --update to put right what is safe")
    if any(one.field in SIZING_FIELDS for one in unsafe):
        hints.append("a smaller limit could drop events: leave it out to keep the one that is there")
    if any(one.field not in SIZING_FIELDS for one in unsafe):
        hints.append(RECREATE_HINT)
    raise Failure(f"the broker differs from what is wanted: {'; '.join(hints)}")


def _print(what: str, items: tuple[Any, ...]) -> None:
    for item in items:
        click.echo(f"{what:<9}  {item}")
