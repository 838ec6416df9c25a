"""`opstream replay`: prints the history that lies on the broker.

Events go to stdout, everything else to stderr. Exit statuses: 0 everything that is wanted was printed, 1 something was
not, or the broker was out of reach, 130 interrupted.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Final, Literal

import click
import msgspec

from opstream.cli.options import common as service_options
from opstream.cli.options import history as options
from opstream.history.event_reader import EventReader, HistoryQuery, StoredEvent
from opstream.terminal.console import EXIT_INTERRUPTED, CommandError, coloured, line_width, printable, supports_colour
from opstream.terminal.event_row import EVENT_COLOURS, summary
from opstream.terminal.progress_bar import StreamProgress
from opstream.terminal.stdout_writer import StdoutWriter
from opstream.terminal.table import fits_beside, text_beside, text_on_second_line
from opstream_journal import JournalError, connect
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.events import EventData, decode_event

_CHUNK_BYTES: Final = 1024 * 1024
_LAST_WRITE_TIMEOUT: Final = 1.0
_WIDE_HEADING: Final = (
    f"{'sequence':>10}  {'stored (UTC)':<19}  {'operation':<36}  {'pos':>4}  {'action':<24}  {'event':<16}"
)
_NARROW_HEADING: Final = f"{'sequence':>8}  {'stored (UTC)':<19}  {'pos':>4}  {'action':<24}  {'event':<16}"
_NARROW_HEADING_BELOW: Final = f"{'operation':<36}"
OutputFormat = Literal["cloudevents", "records", "table"]
OUTPUT_FORMATS: Final[tuple[OutputFormat, ...]] = ("cloudevents", "records", "table")


class ReplaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """`opstream replay`."""

    wanted: HistoryQuery
    form: OutputFormat | None
    """None: a table on a terminal, otherwise CloudEvents."""
    servers: tuple[str, ...]
    connect_timeout: float
    """Seconds."""


@click.command(short_help="Print the history of all operations.")
@options.query_options
@options.replay_follow_option
@options.format_option
@service_options.nats_option
@service_options.connect_timeout_option
def replay(*, is_following: bool, **given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Print the events that the broker holds, oldest first.

    Events go to stdout, everything else to stderr. The last line there says with which --from-sequence to go on later,
    so that nothing is left out or comes twice. What is no event is passed over and told, and so are sequences that are
    missing; the exit status is then 1. It is 0 if all was printed, 130 after Ctrl-C.

    \b
    Example:
      opstream replay --since 2h --action 'book:*' --type failed | jq -r .data.error.message
    """
    wanted = options.history_query(datetime.now(UTC), given, is_following=is_following)
    print_history(ReplaySettings(wanted=wanted, **given))


def print_history(settings: ReplaySettings) -> None:
    """Print the events that are wanted, and at the end where to go on.

    Raises:
        Failure: not everything that lies there could be printed; or see `Walk.batches`.
    """
    try:
        asyncio.run(_replay(settings))
    except BrokenPipeError:
        return  # who has read enough needs no advice, and how far that was only he knows
    except OSError as error:
        raise CommandError(f"standard output can't be written to: {error.strerror}") from error
    except JournalError as error:
        raise CommandError(printable(str(error))) from error
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


async def _replay(settings: ReplaySettings) -> None:
    form: OutputFormat = settings.form or ("table" if sys.stdout.isatty() else "cloudevents")
    link = await connect(settings.servers, "opstream-replay", connect_timeout=settings.connect_timeout)
    try:
        progress = StreamProgress(is_shown=not sys.stdout.isatty() and not settings.wanted.is_following)
        walk = EventReader(link, settings.wanted, lambda text: progress.print_line(printable(text)))
        with StdoutWriter(sys.stdout.fileno()) as pipe, progress:
            await _print(walk, pipe, form, progress)
    finally:
        await link.close()
    if walk.problem:
        raise CommandError(f"not all that lies there was printed: {walk.problem}")


async def _print(walk: EventReader, pipe: StdoutWriter, form: OutputFormat, progress: StreamProgress) -> None:
    printer = _formatter(form)
    if form == "table":
        await pipe.write(f"{_heading(line_width(sys.stdout))}\n".encode())
    count, printed = 0, 0
    part: list[StoredEvent] = []
    try:
        async with aclosing(walk.batches()) as batches:
            async for batch in batches:
                for part in _chunks(batch):
                    await pipe.write(printer(part))
                    count, printed = count + len(part), part[-1].message.sequence
                part = []
                progress.advance(walk.first_sequence, printed if batch else walk.next_sequence, walk.last_sequence)
    except (asyncio.CancelledError, JournalError) as error:
        hint = ""
        if part and printed < part[-1].message.sequence:
            if await pipe.is_written(_LAST_WRITE_TIMEOUT):
                count, printed = count + len(part), part[-1].message.sequence
            else:
                hint = ", and what nobody takes, which comes again"
        how = "interrupted" if isinstance(error, asyncio.CancelledError) else "stopped"
        progress.print_line(f"{how} after {_events(count)}{hint}; {_resume_hint(max(printed + 1, walk.next_sequence))}")
        raise
    progress.print_line(f"{_events(count)}; {_resume_hint(walk.next_sequence)}")


def _chunks(batch: list[StoredEvent]) -> Iterator[list[StoredEvent]]:
    """The batch in parts that are printed at once, so that large events are not in memory twice."""
    part: list[StoredEvent] = []
    size = 0
    for one in batch:
        part.append(one)
        size += len(one.message.data)
        if size >= _CHUNK_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _resume_hint(sequence: int) -> str:
    return f"go on with --from-sequence {sequence}"


def _events(count: int) -> str:
    return "1 event" if count == 1 else f"{count} events"


def _formatter(form: OutputFormat) -> Callable[[Sequence[StoredEvent]], bytes]:
    if form == "records":
        return lambda batch: b"".join(map(_format_record, batch))
    if form == "table":
        is_on, columns = supports_colour(sys.stdout), line_width(sys.stdout)
        return lambda batch: "".join(f"{table_row(one, is_on=is_on, room=columns)}\n" for one in batch).encode()
    return lambda batch: b"".join([line for one in batch for line in (_one_line(one.message.data), b"\n")])


def _format_record(found: StoredEvent) -> bytes:
    message = found.message
    stored = message.stored_at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return b'{"sequence":%d,"storedAt":"%s","subject":"%s","event":%s}\n' % (
        message.sequence,
        stored.encode(),
        message.subject.encode(),
        _one_line(message.data),
    )


def _heading(room: int | None) -> str:
    return (
        f"{_WIDE_HEADING}  what"
        if fits_beside(_WIDE_HEADING, room)
        else text_on_second_line(_NARROW_HEADING, _NARROW_HEADING_BELOW, "what", room)
    )


def table_row(found: StoredEvent, *, is_on: bool, room: int | None) -> str:
    """One event of the table: `is_on` for colours, `room` for the columns of a terminal. Where these are few, the
    operation and what happened are on lines of their own."""
    message, envelope = found
    *_, resource, action, name = message.subject.split(".")
    stored = f"{message.stored_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    shown = coloured(f"{name:<16}", EVENT_COLOURS.get(name), is_on=is_on)
    rest = f"{envelope.position:>4}  {f'{resource}:{action}':<24}  {shown}"
    what = summary(_decoded_data(found))
    if fits_beside(_WIDE_HEADING, room):
        return text_beside(f"{message.sequence:>10}  {stored}  {envelope.subject:<36}  {rest}", what, room)
    return text_on_second_line(f"{message.sequence:>8}  {stored}  {rest}", f"{envelope.subject:<36}", what, room)


def _decoded_data(found: StoredEvent) -> EventData | None:
    try:
        return decode_event(found.message.data, found.message.sequence).data
    except InvalidEvent:
        return None  # of a version that has another form; the other formats print it as it is


def _one_line(stored: bytes) -> bytes:
    # Line breaks in JSON are only space; bytes that are left as they are can be checked against the next event's hash.
    return stored.replace(b"\n", b" ").replace(b"\r", b" ") if b"\n" in stored or b"\r" in stored else stored
