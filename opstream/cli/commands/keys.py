"""`opstream keys`: key-encryption keys, and the keys of confidential operations."""

from __future__ import annotations

import asyncio
import os
import secrets
from base64 import b64encode
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from opstream.cli.options import common as common_options
from opstream.cli.options.option import PathType
from opstream.terminal.console import CommandError
from opstream_schemas.text import format_count

from .actions import BrokerPlace

if TYPE_CHECKING:
    from opstream_journal.keys.keks import KekRing
    from opstream_journal.keys.operation_keys import OperationKeys

_T = TypeVar("_T")
_FILE: Final = PathType(path_type=Path, dir_okay=False)


@click.group
def keys() -> None:
    """Make and rotate key-encryption keys; export and import the keys of confidential operations.

    docs/confidential.md says what is kept where, and what to do after a disaster.

    \b
    Example:
      opstream keys new kek
    """


@keys.command("new")
@click.argument("path", metavar="FILE", type=_FILE)
def new(path: Path) -> None:
    """Make a key-encryption key, as the first one of FILE.

    The first key of the file wraps new keys, all of them open old ones. A new file is readable by its owner only. Keep
    a copy of it where no backup of the broker is: who has both can read everything, and without it nobody can.

    \b
    Example:
      opstream keys new /etc/opstream/kek
    """
    line = b64encode(secrets.token_bytes(32)) + b"\n"
    try:
        before = path.read_bytes() if path.exists() else b""
        mode = path.stat().st_mode & 0o777 if before else 0o600
        part = path.with_name(f"{path.name}.part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(line + before)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise CommandError(f"{path} can't be written: {error.strerror}", status=2) from error
    text = (
        "it has one key" if not before else "its first key is new: restart API and runners, then 'opstream keys rotate'"
    )
    click.echo(f"{path}: {text}", err=True)


@keys.command("rotate")
@common_options.kek_options
@common_options.nats_option
@common_options.connect_timeout_option
def rotate(**given: Any) -> None:  # noqa: ANN401 - the options above
    """Wrap all keys by the first key-encryption key, and destroy what others have wrapped.

    Run it once all services have the new key-encryption key, and again until it has nothing to do. Then the old one may
    go. It reads no operation, and services need not stop.

    \b
    Example:
      opstream keys rotate --kek-file /etc/opstream/kek
    """
    ring = _ring(given)

    async def work(keys: OperationKeys) -> int:
        done = 0
        async for entry in keys.entries():
            done += await keys.rewrap(entry)
        return done

    done = _at_broker("keys", given, work, ring)
    click.echo(f"{format_count(done, 'key')} wrapped by the key-encryption key {ring.current.id}")


@keys.command("export")
@click.argument("path", metavar="FILE", type=_FILE)
@common_options.nats_option
@common_options.connect_timeout_option
def export(path: Path, **given: Any) -> None:  # noqa: ANN401
    """Write all keys, wrapped as they are, and the list of erased operations to FILE, one JSON object a line.

    No backup has them, so without such a file a restore on another broker can't open anything. A copy that is older
    than an erasure would undo it: replace it, keep none of the older ones, and keep the list of 'opstream keys erased'
    apart, which 'opstream keys import' and 'opstream restore' apply. It is of no use without the key-encryption key.

    \b
    Example:
      opstream keys export /secure/operation-keys
    """
    count = _at_broker("keys", given, lambda keys: _write(keys, path), None)
    click.echo(f"{path}: {format_count(count, 'line')}", err=True)


@keys.command("import")
@click.argument("path", metavar="FILE", type=_FILE)
@click.argument("erased", metavar="[ERASED]...", nargs=-1, type=_FILE)
@common_options.nats_option
@common_options.connect_timeout_option
def import_(path: Path, erased: tuple[Path, ...], **given: Any) -> None:  # noqa: ANN401
    """Bring the keys of FILE to a broker, but for those of operations that FILE or the lists ERASED say are erased.

    What is on the broker stays as it is; what is erased there stays so.

    \b
    Example:
      opstream keys import /secure/operation-keys /secure/erased --nats nats://new:4222
    """
    from opstream.backup.key_file import apply_lines, read_lines

    lines = [line for file in (*erased, path) for line in read_lines(file)]
    applied = _at_broker("keys", given, lambda keys: apply_lines(keys, lines), None)
    click.echo(f"{format_count(applied.keys, 'key')} brought, {format_count(applied.erased, 'operation')} erased")


@keys.command("erased")
@common_options.nats_option
@common_options.connect_timeout_option
def erased(**given: Any) -> None:  # noqa: ANN401
    """Print the list of erased operations: which, when, by whom and why, one JSON object a line.

    Keep it outside of backups, and give it to 'opstream restore --erased' and 'opstream keys import'.

    \b
    Example:
      opstream keys erased > /secure/erased
    """
    from opstream.backup.key_file import encode_line, is_erasure

    async def work(keys: OperationKeys) -> None:
        async for entry in keys.entries():
            if (line := encode_line(entry)) is not None and is_erasure(line):
                click.echo(line.decode(), nl=False)

    _at_broker("keys", given, work, None)


async def _write(keys: OperationKeys, path: Path) -> int:
    from opstream.backup.key_file import encode_line

    found: dict[str, bytes] = {}
    async for entry in keys.entries():
        if (line := encode_line(entry)) is not None:
            found[entry.name] = line  # a later value of the same name counts
    part = path.with_name(f"{path.name}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(found.values())
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise CommandError(f"{path} can't be written: {error.strerror}", status=2) from error
    return len(found)


def _ring(given: dict[str, Any]) -> KekRing:
    from opstream_journal.keys.keks import NO_KEK, open_ring
    from opstream_schemas.errors import InvalidKek

    location = common_options.take_keks(given)
    try:
        ring = open_ring(location)
    except InvalidKek as error:
        raise CommandError(str(error), status=2) from error
    if ring is None:
        raise CommandError(f"'opstream keys rotate' can't wrap anything: {NO_KEK}", status=2)
    return ring


def _at_broker(
    command: str, given: dict[str, Any], work: Callable[[OperationKeys], Awaitable[_T]], ring: KekRing | None
) -> _T:
    place = BrokerPlace(**given)

    async def run() -> _T:
        from opstream.cli.broker_session import broker_session
        from opstream_journal.keys.operation_keys import OperationKeys

        async with broker_session(
            place.servers, command, place.connect_timeout, credentials=place.credentials
        ) as connection:
            return await work(OperationKeys(connection, ring))

    return asyncio.run(run())
