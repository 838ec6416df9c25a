"""`opstream replay`: prints the history that the broker holds.

Events go to stdout, everything else to stderr. Exit statuses: 0 every selected event was printed, 1 some were not, or
the broker could not be reached, 130 interrupted.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import click
import msgspec

from opstream.cli.options import common as common_options
from opstream.cli.options import history as history_options
from opstream.terminal.console import (
    EXIT_INTERRUPTED,
    CommandError,
    coloured,
    line_width,
    printable,
    shown_json,
    supports_colour,
)
from opstream.terminal.event_row import EVENT_COLOURS, summary
from opstream.terminal.progress_bar import StreamProgress
from opstream.terminal.stdout_writer import StdoutWriter
from opstream.terminal.table import fits_beside, text_beside, text_on_second_line
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.events import EventData, decode_event
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials

if TYPE_CHECKING:
    from opstream.history.event_reader import EventReader, HistoryQuery, StoredEvent

_CHUNK_BYTES: Final = 1024 * 1024
_LAST_WRITE_TIMEOUT: Final = 1.0
"""Seconds for a write that was under way when the command was interrupted."""
_WIDE_HEADING: Final = (
    f"{'sequence':>10}  {'stored (UTC)':<19}  {'operation':<36}  {'pos':>4}  {'action':<24}  {'event':<16}"
)
_NARROW_HEADING: Final = f"{'sequence':>8}  {'stored (UTC)':<19}  {'pos':>4}  {'action':<24}  {'event':<16}"
_NARROW_HEADING_BELOW: Final = f"{'operation':<36}"

OutputFormat = Literal["cloudevents", "records", "table"]


class ReplaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `opstream replay`."""

    query: HistoryQuery
    form: OutputFormat | None
    """None: a table on a terminal, otherwise CloudEvents."""
    servers: tuple[str, ...]
    credentials: BrokerCredentials = NO_CREDENTIALS
    connect_timeout: float
    """Seconds."""


@click.command
@history_options.query_options
@history_options.replay_follow_option
@history_options.format_option
@common_options.nats_option
@common_options.connect_timeout_option
def replay(*, is_following: bool, **given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Print the events that the broker holds, oldest first.

    Events go to stdout, everything else to stderr. The last line there says which --from-sequence continues the output
    later, so that no event is left out or printed twice. Messages that are not events are skipped and reported, and so
    are missing sequences; the exit status is then 1. It is 0 if all was printed, 130 after Ctrl-C.

    \b
    Example:
      opstream replay --since 2h --action 'book:*' --type failed | jq -r .data.error.message
    """
    query = history_options.history_query(datetime.now(UTC), given, is_following=is_following)
    print_history(ReplaySettings(query=query, **given))


def print_history(settings: ReplaySettings) -> None:
    """Print the selected events, and at the end where to continue.

    Raises:
        CommandError: some messages were skipped, or as `broker_session` and `EventReader.batches`.
        SystemExit: Ctrl-C was pressed.
    """
    try:
        asyncio.run(_replay(settings))
    except BrokenPipeError:
        return  # the reader has read enough, and only the reader knows how far that was
    except OSError as error:
        raise CommandError(f"standard output can't be written to: {error.strerror}") from error
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


async def _replay(settings: ReplaySettings) -> None:
    from opstream.cli.broker_session import broker_session
    from opstream.history.event_reader import EventReader
    from opstream.history.lost_events import problem_with_losses

    form: OutputFormat = settings.form or ("table" if sys.stdout.isatty() else "cloudevents")
    async with broker_session(
        settings.servers, "replay", settings.connect_timeout, credentials=settings.credentials
    ) as connection:
        progress = StreamProgress(is_shown=not sys.stdout.isatty() and not settings.query.is_following)

        def report(text: str) -> None:
            progress.print_line(printable(text))

        reader = EventReader(connection, settings.query, report)
        with StdoutWriter(sys.stdout.fileno()) as stdout, progress:
            if settings.query.is_following:  # which has no end to say it at
                await problem_with_losses(connection, reader, report)
            await _print(reader, stdout, form, progress)
            problem = await problem_with_losses(connection, reader, report)
    if problem:
        raise CommandError(f"not everything was printed: {problem}")


def _shown(lines: bytes, form: OutputFormat) -> bytes:
    return lines if form == "table" else shown_json(lines)


async def _print(reader: EventReader, stdout: StdoutWriter, form: OutputFormat, progress: StreamProgress) -> None:
    from opstream_journal import JournalError

    format_events = _formatter(form)
    if form == "table":
        await stdout.write(f"{_heading(line_width(sys.stdout))}\n".encode())
    count, printed = 0, 0
    chunk: list[StoredEvent] = []
    try:
        async with aclosing(reader.batches()) as batches:
            async for batch in batches:
                for chunk in _chunks(batch):
                    await stdout.write(_shown(format_events(chunk), form))
                    count, printed = count + len(chunk), chunk[-1].message.sequence
                chunk = []
                position = printed if batch else reader.next_sequence
                progress.advance(reader.first_sequence, position, reader.last_sequence)
    except (asyncio.CancelledError, JournalError) as error:
        hint = ""
        if chunk and printed < chunk[-1].message.sequence:
            if await stdout.is_written(_LAST_WRITE_TIMEOUT):
                count, printed = count + len(chunk), chunk[-1].message.sequence
            else:
                hint = ", and some that were not read from stdout and will be printed again"
        how = "interrupted" if isinstance(error, asyncio.CancelledError) else "stopped"
        next_sequence = max(printed + 1, reader.next_sequence)
        progress.print_line(f"{how} after {_events(count)}{hint}; {_resume_hint(next_sequence)}")
        raise
    progress.print_line(f"{_events(count)}; {_resume_hint(reader.next_sequence)}")


def _chunks(batch: list[StoredEvent]) -> Iterator[list[StoredEvent]]:
    """Parts of a batch that are printed at once, so that large events are not in memory twice."""
    chunk: list[StoredEvent] = []
    size = 0
    for event in batch:
        chunk.append(event)
        size += len(event.message.data)
        if size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _resume_hint(sequence: int) -> str:
    return f"go on with --from-sequence {sequence}"


def _events(count: int) -> str:
    return "1 event" if count == 1 else f"{count} events"


def _formatter(form: OutputFormat) -> Callable[[Sequence[StoredEvent]], bytes]:
    if form == "records":
        return lambda events: b"".join(map(_format_record, events))
    if form == "table":
        has_colour, width = supports_colour(sys.stdout), line_width(sys.stdout)
        return lambda events: "".join(
            f"{table_row(event, has_colour=has_colour, width=width)}\n" for event in events
        ).encode()
    return lambda events: b"".join([part for event in events for part in (_one_line(event.message.data), b"\n")])


def _format_record(event: StoredEvent) -> bytes:
    message = event.message
    stored = message.stored_at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return b'{"sequence":%d,"storedAt":"%s","subject":"%s","event":%s}\n' % (
        message.sequence,
        stored.encode(),
        message.subject.encode(),
        _one_line(message.data),
    )


def _heading(width: int | None) -> str:
    if fits_beside(_WIDE_HEADING, width):
        return f"{_WIDE_HEADING}  what"
    return text_on_second_line(_NARROW_HEADING, _NARROW_HEADING_BELOW, "what", width)


def table_row(event: StoredEvent, *, has_colour: bool, width: int | None) -> str:
    """One event of the table. On a narrow terminal the operation and the description have a line of their own.

    Args:
        event: what the row shows.
        has_colour: whether to colour it.
        width: columns of the terminal; None for no limit.
    """
    message, envelope = event
    *_, resource, action, name = message.subject.split(".")
    stored = f"{message.stored_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    shown = coloured(f"{name:<16}", EVENT_COLOURS.get(name), has_colour=has_colour)
    rest = f"{envelope.position:>4}  {f'{resource}:{action}':<24}  {shown}"
    what = summary(_decoded_data(event))
    if fits_beside(_WIDE_HEADING, width):
        return text_beside(f"{message.sequence:>10}  {stored}  {envelope.subject:<36}  {rest}", what, width)
    return text_on_second_line(f"{message.sequence:>8}  {stored}  {rest}", f"{envelope.subject:<36}", what, width)


def _decoded_data(event: StoredEvent) -> EventData | None:
    try:
        return decode_event(event.message.data, event.message.sequence).data
    except InvalidEvent:
        return None  # of a version with other data; the other formats print it unchanged


def _one_line(stored: bytes) -> bytes:
    # Line breaks in JSON are only white space. Unchanged bytes can be checked against the next event's hash.
    return stored.replace(b"\n", b" ").replace(b"\r", b" ") if b"\n" in stored or b"\r" in stored else stored
