"""`opstream apikey`: makes, lists and revokes the keys of the API's callers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import msgspec

from opstream.cli.options import common as common_options
from opstream.cli.options.option import Decorator, checked, checked_list, option
from opstream.cli.options.value_types import Duration
from opstream.terminal.console import CommandError, line_width, printable, shown_json
from opstream.terminal.table import text_beside
from opstream_schemas.errors import InvalidName
from opstream_schemas.logs.access_log import AdminAct
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials

if TYPE_CHECKING:
    from opstream_api.access.keys.api_key import ApiKeyRecord
    from opstream_journal.stores.access_bucket import AccessBucket

_T = TypeVar("_T")

_COLUMNS: Final = "{:<10}  {:<7}  {:<16}  {:<16}  {:<10}  {:<10}"
_HEADING: Final = _COLUMNS.format("id", "state", "tenant", "subject", "created", "expires")
_TRIES: Final = 5


def _check_tenant(text: str) -> str:
    from opstream_api.access.principal import check_tenant

    return check_tenant(text)


def _check_scope(text: str) -> str:
    from opstream_api.access.scopes import check_scope

    return check_scope(text)


_file_option: Final[Decorator[Any]] = option(
    "--file",
    variable="APIKEY_FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The file that has the keys, for 'opstream api --auth-keys-file'. Without it they are kept by the broker.",
)
_tenant_option: Final[Decorator[Any]] = option(
    "--tenant",
    variable="APIKEY_TENANT",
    default="",
    metavar="NAME",
    callback=checked(_check_tenant),
    help="The tenant of the caller: tenants share no operations, ids or resources. Without it the operator's own.",
)
_subject_option: Final[Decorator[Any]] = option(
    "--subject",
    variable="APIKEY_SUBJECT",
    metavar="NAME",
    help="The user or program that gets the key. Operations belong to tenant and subject, so a new key keeps them.",
)
_scope_option: Final[Decorator[Any]] = option(
    "--scope",
    "scopes",
    variable="APIKEY_SCOPES",
    multiple=True,
    metavar="SCOPE",
    callback=checked_list(_check_scope),
    help="What the key allows: submit, submit:book:*, submit:book:upload-start, read, read:all, cancel, erase, signal, "
    "run, run:book:*, admin (docs/access.md).",
)
_expires_option: Final[Decorator[Any]] = option(
    "--expires",
    variable="APIKEY_EXPIRES",
    type=Duration(is_positive=True),
    metavar="DURATION",
    help="How long the key is valid, e.g. 90d. Without it until it is revoked.",
)
_priority_option: Final[Decorator[Any]] = option(
    "--most-priority",
    variable="APIKEY_MOST_PRIORITY",
    type=click.Choice(["high", "normal", "low"]),
    help="The highest priority that its requests may ask for (docs/actions.md). Without it any.",
)
_note_option: Final[Decorator[Any]] = option(
    "--note", variable="APIKEY_NOTE", default="", metavar="TEXT", help="What the key is for, shown by 'list'."
)
_json_option: Final[Decorator[Any]] = option(
    "--json", "is_json", variable="JSON", is_flag=True, help="One JSON object per line, also on a terminal."
)


class KeyPlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where the keys are kept."""

    file: Path | None
    """None for the broker."""
    servers: tuple[str, ...]
    credentials: BrokerCredentials = NO_CREDENTIALS
    connect_timeout: float
    """Seconds."""


class _KeyLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A key as it is printed: without its hash."""

    id: str
    state: str
    tenant: str
    subject: str
    scopes: tuple[str, ...]
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None
    note: str = ""
    most_priority: str = ""


@click.group
def apikey() -> None:
    """Make, list and revoke the keys of callers, for an API with --auth keys.

    Every API process knows a change within a second. Only the hash of a key is kept.

    \b
    Example:
      opstream apikey add --tenant acme --subject shop --scope submit:book:* --scope read --expires 90d
      opstream apikey list
      opstream apikey revoke 4k7wq2mznb
    """


@apikey.command
@_tenant_option
@_subject_option
@_scope_option
@_expires_option
@_priority_option
@_note_option
@_file_option
@common_options.nats_option
@common_options.connect_timeout_option
def add(
    *,
    tenant: str,
    subject: str | None,
    scopes: tuple[str, ...],
    expires: float | None,
    most_priority: str | None,
    note: str,
    **place: Any,  # noqa: ANN401 - the options above
) -> None:
    """Make a key and print it, once: it can't be shown again.

    \b
    Example:
      opstream apikey add --subject ci --scope submit --scope read --expires 90d > ci.key
    """
    if not subject:
        raise click.UsageError("it needs --subject, the user or program that gets the key, e.g. --subject ci")
    if not scopes:
        raise click.UsageError("it needs --scope, what the key allows, e.g. --scope submit --scope read")
    from opstream_api.access.keys.api_key import create_key

    now = datetime.now(UTC)
    until = None if expires is None else now + timedelta(seconds=expires)
    try:
        key, record = create_key(
            tenant=tenant,
            subject=subject,
            scopes=scopes,
            now=now,
            expires=until,
            note=note,
            most_priority=most_priority or "",
        )
    except InvalidName as error:
        raise click.UsageError(str(error)) from error
    _store(KeyPlace(**place), record)
    click.echo(key)
    what = f"key {record.id} of {_owner(record)}: {', '.join(record.scopes)}"
    click.echo(printable(f"opstream: {what}; keep it, since it can't be shown again"), err=True)


@apikey.command(name="list")
@_json_option
@_file_option
@common_options.nats_option
@common_options.connect_timeout_option
def list_keys(*, is_json: bool, **place: Any) -> None:  # noqa: ANN401 - the options above
    """Show all keys, oldest first, also those that expired or were revoked.

    A table on a terminal, otherwise one JSON object per line.

    \b
    Example:
      opstream apikey list --json | jq -r 'select(.state == "valid").id'
    """
    records = sorted(_records(KeyPlace(**place)), key=lambda record: (record.created, record.id))
    now = datetime.now(UTC)
    is_table = sys.stdout.isatty() and not is_json
    if is_table and records:
        click.echo(text_beside(_HEADING, "scopes: note", line_width(sys.stdout)))
    for record in records:
        click.echo(table_row(record, now, line_width(sys.stdout)) if is_table else _json_row(record, now))
    if not records:
        click.echo("opstream: there are no keys: 'opstream apikey add' makes one", err=True)


@apikey.command
@click.argument("key_id", metavar="ID")
@_file_option
@common_options.nats_option
@common_options.connect_timeout_option
def revoke(*, key_id: str, **place: Any) -> None:  # noqa: ANN401 - the options above
    """Revoke the key with this id, for good. Requests that wait or stream by it end, too.

    \b
    Example:
      opstream apikey revoke 4k7wq2mznb
    """
    if "_" in key_id:
        raise click.UsageError("that is not the id of a key: write only the part between 'ops_' and the next '_'")
    record = _revoke(KeyPlace(**place), key_id, datetime.now(UTC))
    click.echo(printable(f"opstream: key {key_id} of {_owner(record)} is revoked"), err=True)


def table_row(record: ApiKeyRecord, now: datetime, width: int | None) -> str:
    """One key of the table.

    Args:
        record: what the row shows.
        now: the time, with a time zone.
        width: columns of the terminal; None for no limit.
    """
    head = _COLUMNS.format(
        record.id,
        _state(record, now),
        record.tenant or "-",
        record.subject,
        f"{record.created:%Y-%m-%d}",
        f"{record.expires:%Y-%m-%d}" if record.expires else "never",
    )
    most = f", {record.most_priority} priority at most" if record.most_priority else ""
    scopes = " ".join(record.scopes) + most
    return text_beside(printable(head), printable(f"{scopes}: {record.note}" if record.note else scopes), width)


def _json_row(record: ApiKeyRecord, now: datetime) -> bytes:
    shown = {name: getattr(record, name) for name in _KeyLine.__struct_fields__ if name != "state"}
    return shown_json(msgspec.json.encode(_KeyLine(state=_state(record, now), **shown)))


def _state(record: ApiKeyRecord, now: datetime) -> str:
    if record.revoked is not None:
        return "revoked"
    return "valid" if record.is_usable(now) else "expired"


def _owner(record: ApiKeyRecord) -> str:
    return f"{record.tenant}/{record.subject}" if record.tenant else record.subject


def _store(place: KeyPlace, record: ApiKeyRecord) -> None:
    from opstream_api.access.keys.api_key import encode_key

    async def put(bucket: AccessBucket) -> None:
        await bucket.secret()  # so that an API needs no right to write here
        if not await bucket.put_record(record.id, encode_key(record), 0):
            raise CommandError("another key has this id, by chance: run it again")

    detail = f"of {_owner(record)}: {', '.join(record.scopes)}"
    if place.file is not None:
        _change_file(place.file, lambda records: [*records, record])
    else:
        _with_bucket(place, put, lambda _: (AdminAct.KEY_ADDED, record.id, detail))


def _records(place: KeyPlace) -> Sequence[ApiKeyRecord]:
    from opstream_api.access.keys.api_key import decode_key
    from opstream_api.access.keys.key_file import InvalidKeyFile, read_key_file

    if place.file is not None:
        try:
            return read_key_file(place.file)
        except InvalidKeyFile as error:
            raise CommandError(str(error)) from error
    found = []
    for key_id, data in _with_bucket(place, lambda bucket: bucket.records()).items():
        try:
            found.append(decode_key(data))
        except InvalidName as error:
            click.echo(printable(f"opstream: key {key_id} is not in use: {error}"), err=True)
    return found


def _revoke(place: KeyPlace, key_id: str, now: datetime) -> ApiKeyRecord:
    from opstream_api.access.keys.api_key import decode_key, encode_key

    unknown = CommandError(f"there is no key {key_id!r}: 'opstream apikey list' shows all")
    changed: list[ApiKeyRecord] = []

    def change(records: Sequence[ApiKeyRecord]) -> Sequence[ApiKeyRecord]:
        changed.extend(_revoked(record, now) for record in records if record.id == key_id)
        if not changed:
            raise unknown
        return [changed[0] if record.id == key_id else record for record in records]

    async def put(bucket: AccessBucket) -> ApiKeyRecord:
        for _ in range(_TRIES):
            entry = await bucket.record(key_id)
            if not entry.data:
                raise unknown
            record = _revoked(decode_key(entry.data), now)
            if await bucket.put_record(key_id, encode_key(record), entry.revision):
                return record
        raise CommandError(f"the key {key_id} keeps changing: run it again")

    if place.file is not None:
        _change_file(place.file, change)
        return changed[0]
    if not key_id.isalnum() or not key_id.isascii():
        raise unknown
    try:
        return _with_bucket(place, put, lambda changed: (AdminAct.KEY_REVOKED, key_id, f"of {_owner(changed)}"))
    except InvalidName as error:
        raise CommandError(f"the key {key_id} is not in use: {error}") from error


def _revoked(record: ApiKeyRecord, now: datetime) -> ApiKeyRecord:
    return record if record.revoked is not None else msgspec.structs.replace(record, revoked=now)


def _change_file(path: Path, change: Callable[[Sequence[ApiKeyRecord]], Sequence[ApiKeyRecord]]) -> None:
    from opstream_api.access.keys.key_file import InvalidKeyFile, change_key_file

    try:
        change_key_file(path, change)
    except InvalidKeyFile as error:
        raise CommandError(str(error)) from error


def _with_bucket(
    place: KeyPlace,
    work: Callable[[AccessBucket], Awaitable[_T]],
    act: Callable[[_T], tuple[AdminAct, str, str]] | None = None,
) -> _T:
    """Do something with the bucket, and record the act, its target and its detail, if it is one."""

    async def run() -> _T:
        from opstream.cli.admin_acts import record_act
        from opstream.cli.broker_session import broker_session
        from opstream_journal.stores.access_bucket import AccessBucket

        async with broker_session(
            place.servers, "apikey", place.connect_timeout, credentials=place.credentials
        ) as connection:
            bucket = AccessBucket(connection)
            await bucket.start()
            try:
                done = await work(bucket)
            finally:
                await bucket.stop()
            if act is not None:
                what, target, detail = act(done)
                await record_act(connection, what, target=target, detail=detail)
            return done

    return asyncio.run(run())
