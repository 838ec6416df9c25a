"""Restores a backup to a broker that has none of opstream's streams, or whose streams are to be replaced."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from nats.js.api import StreamConfig

from opstream.terminal.console import CommandError
from opstream.terminal.progress_bar import ProgressBar
from opstream_journal import BrokerRefused, Connection, ForeignStream, JournalError
from opstream_journal.jetstream.scans.stream_scan import CREATED
from opstream_journal.keys.operation_keys import KEYS_STREAM, OperationKeys
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_journal.provisioning.archive import ArchiveSizing, archive_stream
from opstream_journal.provisioning.ownership import RIGHT_BROKER, explain_foreign_stream
from opstream_journal.provisioning.restore_mark import own_metadata, restore_mark
from opstream_journal.provisioning.topology import Sizing, streams
from opstream_schemas import subjects
from opstream_schemas.text import format_count

from .backup_folder import read_chunks
from .key_file import apply_erasures, read_lines
from .manifest import Manifest, StreamRecord
from .reconciliation import Reconciled, Reconciler
from .restored_keys import RestoredKeys, settle_keys
from .snapshot_transfer import RESTORE_CHUNK, Snapshot, send_snapshot
from .stream_plan import JOURNAL, LAST_RESTORED, backup_order, restore_order
from .stream_tail import replay_tail

_ACCESS: Final = subjects.bucket_stream(subjects.ACCESS_BUCKET)
_NO_PEERS: Final = 10005
"""JetStream's `err_code` for more replicas than a cluster has servers that it knows to be there."""
_TOO_FEW_SERVERS: Final = frozenset({_NO_PEERS, 10074})
"""JetStream's `err_code` for more replicas than there are servers, in a cluster and without one."""
_STALLED: Final = "closed pipe"
"""In the broker's answer to a chunk of a restore that it has given up."""
_REPLACING: Final = "to be replaced from "
"""Beginning of the mark of a stream that --replace deletes. It is not of a restore yet, and may be the only one."""
_PEERS_TIMEOUT: Final = 5.0
"""Seconds in which the servers of a cluster that has just started get to know each other, as for `provision`."""
_CONSUMERS_TIMEOUT: Final = 30.0
_REPLICAS_TIMEOUT: Final = 60.0
_POLL: Final = 0.1
_MEBIBYTE: Final = 1024 * 1024


class RestoreSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator chooses."""

    folder: Path
    """Of the backup, which was checked."""
    replicas: int | None = None
    """Copies of each stream; None for as many as the backup had."""
    is_replacing: bool = False
    """Delete opstream's streams on the broker first."""
    is_revoking_keys: bool = False
    """Revoke all API keys, before a service can start."""
    erased: tuple[Path, ...] = ()
    """Lists of operations whose keys are destroyed, if the broker has them, before a service can start."""


class Restorer:
    """Restores one backup. Use it once.

    Args:
        connection: the connection.
        settings: see `RestoreSettings`.
        manifest: of the backup.
        bar: shows the progress.
    """

    def __init__(self, connection: Connection, settings: RestoreSettings, manifest: Manifest, bar: ProgressBar) -> None:
        self._connection = connection
        self._settings = settings
        self._manifest = manifest
        self._bar = bar
        self._mark = f"{settings.folder.absolute().name} of {manifest.began_at:%Y-%m-%dT%H:%M:%SZ}"
        self._names = tuple(stream.name for stream in manifest.streams)
        self.keys: RestoredKeys | None = None
        """What became of the API keys; None if the backup has none."""

    @property
    def replicas(self) -> int:
        """The copies that the streams will have."""
        return self._settings.replicas or int(self._manifest.stream(JOURNAL).config["num_replicas"])

    async def run(self) -> Reconciled:
        """Restore all streams, make them fit together, and remove the mark. Run again after a failure, it begins again.

        Raises:
            CommandError: the broker has streams of opstream's, and they are not to be replaced; or a file has changed.
            ForeignStream: a stream with one of opstream's names is another application's. Nothing was changed.
            JournalError: the broker was lost, was silent, or refused. What is there is marked as unfinished.
        """
        present = await self._present()
        kept = present.pop(_ACCESS, None) if _ACCESS not in self._names else None
        await self._clear(present)
        if kept is not None:
            self._bar.print_line(
                f"left alone: {_ACCESS}, which the backup does not have: the broker's API keys stay as they are"
            )
        for name in restore_order(self._names):
            await self._restore(self._manifest.stream(name))
        done = await Reconciler(self._connection, self._bar).run()
        if _ACCESS in self._names:
            is_revoking = self._settings.is_revoking_keys
            self.keys = await settle_keys(self._connection, datetime.now(UTC), is_revoking=is_revoking)
        if self._settings.erased:
            await self._apply_erasures()
        if LAST_RESTORED in self._names:
            await self._restore(self._manifest.stream(LAST_RESTORED))
        if kept is not None and restore_mark(kept):  # of a restore that this one takes the place of
            await self._set_mark(_ACCESS, "")
        for name in sorted(self._names, key=lambda name: name == JOURNAL):  # the journal last
            await self._set_mark(name, "")
        return done

    async def _present(self) -> dict[str, StreamConfig]:
        """Return which of our streams the broker has."""
        wanted = {str(config.name): config for config in streams(Sizing())}
        archive = archive_stream(ArchiveSizing(), replicas=1)
        wanted[str(archive.name)] = archive
        found = {}
        for name in dict.fromkeys((*(planned.name for planned in backup_order()), *self._names)):
            config = await admin.stream_config(self._connection, name)
            if config is None:
                continue
            if name in wanted and (why := explain_foreign_stream(config, wanted[name])):
                raise ForeignStream(f"{why}: {RIGHT_BROKER}")
            found[name] = config
        return found

    async def _clear(self, present: Mapping[str, StreamConfig]) -> None:
        """Delete what an earlier restore has left, or all, if that was asked for."""
        if not present:
            return
        marks = {name: restore_mark(config) for name, config in present.items()}
        # The mark goes from the journal last, so with it everything is of the restore that has not ended.
        is_whole = any(mark.startswith(_REPLACING) for mark in marks.values())
        is_unfinished = not is_whole and (bool(marks.get(JOURNAL)) or all(marks.values()))
        names = ", ".join(present)
        if is_unfinished:
            self._bar.print_line(
                f"a restore has not ended ({', '.join(sorted({*marks.values()} - {''}))}): begins again"
            )
        elif not self._settings.is_replacing:
            raise CommandError(
                f"the broker has {names} already, and nothing was touched: restore to another broker, or add "
                "--replace, which deletes these streams with all that is in them"
            )
        mark = self._mark if is_unfinished else f"{_REPLACING}{self._mark}"
        for name in present:
            await self._set_mark(name, mark)  # so that nothing starts on a half of them
        for name in present:
            await admin.delete_stream(self._connection, name)
        self._bar.print_line(f"deleted: {names}")

    async def _restore(self, record: StreamRecord) -> None:
        began = time.monotonic()
        path = self._settings.folder / record.snapshot.name
        metadata = {**own_metadata(record.config, self._mark), CREATED: record.created}
        config = {**record.config, "num_replicas": self.replicas, "metadata": metadata}
        if record.copied:
            # The broker takes the restored journal for a new one, and would copy all of it to the archive once more.
            config["sources"] = [{**one, "opt_start_seq": record.copied + 1} for one in record.config["sources"]]
        self._bar.begin(f"bytes of {record.name}", record.snapshot.bytes)
        sent = 0

        def chunks() -> Iterator[bytes]:
            nonlocal sent
            for chunk in read_chunks(path, RESTORE_CHUNK, record.snapshot):
                yield chunk
                sent += len(chunk)
                self._bar.show(sent)

        try:
            info = await self._send(Snapshot(config=config, state=record.state), chunks)
        except BrokerRefused as refused:
            raise JournalError(f"{record.name} could not be restored: {refused}. {_next_step(refused)}") from refused
        last = int(info["state"]["last_seq"])
        if last < record.last:
            raise JournalError(
                f"{record.name} was restored up to sequence {last}, and the backup has it up to {record.last}"
            )
        await self._check_consumers(record)
        await self._wait_for_replicas(record.name)
        if record.tail is not None:
            with (self._settings.folder / record.tail.name).open("rb") as lines:
                await replay_tail(self._connection, lines, can_roll_up=bool(config.get("allow_rollup_hdrs")))
        self._bar.end()
        size, seconds = record.snapshot.bytes / _MEBIBYTE, time.monotonic() - began
        messages = format_count(int(info["state"]["messages"]), "message")
        self._bar.print_line(f"{record.name}: {messages}, up to sequence {last}, {size:,.1f} MiB in {seconds:.1f} s")

    async def _send(self, snapshot: Snapshot, chunks: Callable[[], Iterator[bytes]]) -> dict[str, Any]:
        """Send a snapshot, and again while a server of a cluster is not known yet: then nothing of it was taken."""
        until = time.monotonic() + _PEERS_TIMEOUT
        while True:
            try:
                return await send_snapshot(self._connection, snapshot, chunks())
            except BrokerRefused as refused:
                if refused.err_code != _NO_PEERS or time.monotonic() >= until:
                    raise
            await self._connection.sleep(_POLL)

    async def _check_consumers(self, record: StreamRecord) -> None:
        """Wait for the consumers of a stream: a cluster assigns them after it has said that the stream is restored."""
        wanted = {str(one["durable_name"]) for one in record.consumers}
        until = time.monotonic() + _CONSUMERS_TIMEOUT
        while wanted:
            present = await admin.consumer_configs(self._connection, record.name)
            missing = sorted(wanted - {str(one.get("durable_name")) for one in present})
            if not missing:
                return
            if time.monotonic() > until:
                raise JournalError(f"{record.name} was restored without its consumers {', '.join(missing)}")
            await self._connection.sleep(_POLL)

    async def _wait_for_replicas(self, name: str) -> None:
        """Wait until the other servers have copied a stream from the one that restored it: reads may be from any."""
        until = time.monotonic() + _REPLICAS_TIMEOUT
        while True:
            info = await admin.stream_info(self._connection, name) or {}
            others = (info.get("cluster") or {}).get("replicas") or ()
            behind = [one["name"] for one in others if not one.get("current") or one.get("lag")]
            if not behind:
                return
            if time.monotonic() > until:
                self._bar.print_line(f"{name}: {', '.join(behind)} still copies it, or does not run")
                return
            await self._connection.sleep(_POLL)

    async def _apply_erasures(self) -> None:
        """Destroy the keys of operations that were erased after the copy of the keys that this broker has was made."""
        lines = [line for path in self._settings.erased for line in read_lines(path)]
        wanted = next(one for one in streams(Sizing(replicas=self.replicas)) if one.name == KEYS_STREAM)
        await admin.create_stream(self._connection, wanted)
        count = await apply_erasures(OperationKeys(self._connection, None), lines)
        self._bar.print_line(f"{format_count(count, 'operation')} of the list erased")

    async def _set_mark(self, name: str, mark: str) -> None:
        info = await admin.stream_info(self._connection, name)
        if info is not None:
            await admin.update_stream(self._connection, name, {"metadata": own_metadata(info["config"], mark)})


def _next_step(refused: BrokerRefused) -> str:
    """Return what to do about a refusal of the broker; empty for one that says so itself."""
    if refused.err_code in _TOO_FEW_SERVERS:
        return "Choose fewer with --replicas"
    if _STALLED in refused.description:
        return (
            "The broker syncs each message, and gives up if that takes more than 5 seconds for a block of them: start "
            "it with 'sync_interval: 2m' for the restore, and with 'always' afterwards (docs/backup.md)"
        )
    return "Its log may say more"


def next_steps(manifest: Manifest, *, has_key: bool, keys: RestoredKeys | None = None) -> list[str]:
    """Return what an operator does after a restore, in order.

    Args:
        manifest: of the backup.
        has_key: whether the journal was compared with the backup's checkpoint.
        keys: what became of the API keys; None if the backup has none.
    """
    began = f"{manifest.began_at:%Y-%m-%d %H:%M:%S} UTC"
    steps = [
        f"operations accepted after {began} are unknown (404): ask for them again",
        "opstream provision, with the options that you run it with: it compares, and changes nothing",
        "start projectors, then runners, then APIs, webhooks and subscribers",
        "opstream verify: the view and the journal are as the restore has left them",
    ]
    if keys is not None and keys.usable:
        steps.insert(1, _keys_step(keys, began))
    if manifest.checkpoint and not has_key:
        steps.insert(
            1, "opstream verify --chain --checkpoint DIR/journal.checkpoints --key PUBLIC, with your public key"
        )
    return steps


def _keys_step(keys: RestoredKeys, began: str) -> str:
    if keys.is_revoked:
        were = format_count(keys.usable, "API key was", "API keys were")
        return f"{were} revoked (--revoke-keys): make new ones with 'opstream apikey add'"
    usable = format_count(keys.usable, "API key is", "API keys are")
    return (
        f"{usable} usable, also those that were revoked after {began}: "
        "'opstream apikey list' shows all, and 'opstream apikey revoke ID' revokes one, before APIs start"
    )
