"""Verifies the hash chains of a stream, compares the stream with signed checkpoints, and adds a checkpoint.

Findings go to stdout, notes, progress and the summary to stderr. docs/audit.md says what each finding means.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click
import msgspec

from opstream.terminal.console import CommandError, printable
from opstream.terminal.progress_bar import StreamProgress
from opstream_journal import Connection, NotProvisioned
from opstream_journal.jetstream.scans.stream_scan import StreamIdentity, scan_stream, stream_bounds, stream_identity
from opstream_journal.stores.journal_witnesses import scan_evidence
from opstream_schemas import subjects
from opstream_schemas.integrity.chain_state import ChainHead, Finding
from opstream_schemas.integrity.checkpoint import (
    CLOCK_SKEW,
    Checkpoint,
    CheckpointBuilder,
    CheckpointVerifier,
    boundary_findings,
    checkpoints_with_gaps,
    lowered_age_limit,
    premature_expiry_findings,
)
from opstream_schemas.integrity.hash_chain import HashChainVerifier
from opstream_schemas.integrity.setback import edge_findings, has_expired
from opstream_schemas.text import format_count

from .checkpoint_file import (
    SignedCheckpoints,
    append_checkpoint,
    check_writable,
    encode_heads,
    read_checkpoints,
    read_heads,
)
from .event_reader import NO_ARCHIVE
from .signing_keys import key_id, load_private_key, load_public_key

_BEGINNING_ADVICE: Final = (
    "messages may have gone because the age limit was lowered for a while, or because the stream was made again. If "
    "you know why it begins there, --accept-beginning takes that for right"
)


class ChainVerifierSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What to verify, and with which checkpoints and keys."""

    is_archive: bool
    checkpoint: Path | None
    """The file of checkpoints."""
    sign: Path | None
    """The private key."""
    keys: tuple[Path, ...]
    """Public keys."""
    is_quick: bool
    """Begin after the last checkpoint."""
    is_accepting: bool
    """Sign although the chains show findings."""
    is_beginning_accepted: bool = False
    """Take the beginning of the stream for right, whatever shows that messages before it went early."""


class ChainVerifier:
    """Verifies one stream from the beginning to the end. Use it once.

    Raises:
        CommandError: a file can't be read or written, or a checkpoint was changed.
    """

    def __init__(self, settings: ChainVerifierSettings) -> None:
        self._settings = settings
        self._signing_key = load_private_key(settings.sign) if settings.sign else None
        trusted = [load_public_key(path) for path in settings.keys]
        if self._signing_key is not None:
            trusted.append(self._signing_key.public_key())
        signed = SignedCheckpoints(checkpoints=(), last_line_hash="")
        self._heads: dict[str, ChainHead] | None = None
        if settings.checkpoint is not None:
            signed = read_checkpoints(settings.checkpoint, trusted)
            if not signed.checkpoints and (self._signing_key is None or settings.is_quick):
                raise CommandError(f"{settings.checkpoint} holds no checkpoint: --sign makes the first one", status=2)
            if self._signing_key is not None:
                check_writable(settings.checkpoint)
            if settings.is_quick:
                self._heads = read_heads(settings.checkpoint, signed.checkpoints[-1])
        self._checkpoints = signed.checkpoints
        self._last_line_hash = signed.last_line_hash
        self._stream_name = subjects.ARCHIVE_STREAM if settings.is_archive else subjects.OPERATIONS_STREAM
        self._check_stream_name()
        self._now = datetime.now(UTC)
        self._newest_stored_at = 0.0
        """When the broker stored the last message that was read, in seconds since 1970."""
        self._edges: tuple[list[Finding], list[Finding]] = ([], [])
        """What others show about the stream's beginning and its end."""
        self._chain_findings = 0
        self._other_findings = 0

    async def run(self, connection: Connection) -> None:
        """Verify the stream, print what is found, and add a checkpoint if there is a private key.

        Raises:
            CommandError: there are findings, or the checkpoints are of another stream.
            JournalError: the broker can't be reached or refuses.
        """
        try:
            stream = await stream_identity(connection, self._stream_name)
        except NotProvisioned as error:
            if not self._settings.is_archive:
                raise
            raise CommandError(NO_ARCHIVE) from error
        if self._checkpoints and self._checkpoints[-1].created != stream.created:
            raise CommandError(
                f"stream {stream.name} was made at {stream.created}, but {self._settings.checkpoint} is of a stream "
                f"that was made at {self._checkpoints[-1].created}: the stream was replaced, so the checkpoints prove "
                "nothing about it"
            )
        self._edges = (
            ([], []) if self._settings.is_archive else edge_findings(await scan_evidence(connection, self._now))
        )
        await self._verify_stream(connection, stream)

    def _check_stream_name(self) -> None:
        if self._checkpoints and self._checkpoints[-1].stream != self._stream_name:
            other = self._checkpoints[-1].stream
            raise CommandError(
                f"{self._settings.checkpoint} is of the stream {other}, not {self._stream_name}: name another file",
                status=2,
            )

    async def _verify_stream(self, connection: Connection, stream: StreamIdentity) -> None:
        covered = self._checkpoints[-1].last if self._checkpoints else stream.first - 1
        ages = [age for age in (stream.max_age, *(checkpoint.max_age for checkpoint in self._checkpoints)) if age]
        age = min(ages, default=0.0)
        begin = covered + 1 if self._heads is not None else stream.first
        chains = HashChainVerifier(
            first=begin, can_expire=bool(age), heads=self._heads, is_archive=self._settings.is_archive
        )
        self._check_beginning(stream, age)
        earlier = self._checkpoints if self._heads is None else checkpoints_with_gaps(self._checkpoints, stream.first)
        verifier = CheckpointVerifier(earlier, begin=stream.first, end=stream.last, age=age, now=self._now)
        builder = CheckpointBuilder(covered + 1)
        began = time.monotonic()
        with StreamProgress("messages", is_plain=True) as progress:
            async for batch in scan_stream(connection, stream.name, first=begin, last=stream.last):
                for message in batch:
                    if message.sequence != chains.next_sequence:
                        await self._record_gap(connection, stream, chains, verifier, message.sequence, age)
                    body = hashlib.sha256(message.data).hexdigest()
                    chains.add_message(message.sequence, message.subject, message.data, body)
                    if message.sequence <= covered:
                        verifier.add_message(message.sequence, message.subject, body, message.nanoseconds)
                    else:
                        builder.add_message(message.sequence, message.subject, body, message.nanoseconds)
                    self._newest_stored_at = message.nanoseconds / 1e9
                self._print_new_findings(chains, verifier, progress)
                progress.advance(begin, chains.next_sequence - 1, stream.last)
        if chains.next_sequence <= stream.last:
            await self._record_gap(connection, stream, chains, verifier, stream.last + 1, age)
        chains.finish()
        verifier.finish()
        self._print_new_findings(chains, verifier, progress)
        self._print_summary(stream, chains, verifier, time.monotonic() - began)
        if self._signing_key is not None and not self._other_findings:
            self._add_checkpoint(stream, chains, builder, covered)
        if findings := self._chain_findings + self._other_findings:
            raise CommandError(
                f"{format_count(findings, 'finding')} in {stream.name}, listed above: "
                "docs/audit.md says what each means"
            )

    async def _record_gap(
        self,
        connection: Connection,
        stream: StreamIdentity,
        chains: HashChainVerifier,
        verifier: CheckpointVerifier,
        until: int,
        age: float,
    ) -> None:
        """Record that the messages before the sequence `until` are missing. If they have expired, it is no finding.

        They were stored after the last message that was read. If none was read, `_check_beginning` has checked them.
        """
        begin = (await stream_bounds(connection, stream.name)).first
        is_due = bool(age) and self._newest_stored_at + age <= datetime.now(UTC).timestamp() + CLOCK_SKEW
        is_expired = is_due and begin >= until
        if is_expired:
            verifier.advance_begin(until)
        chains.add_gap(until, is_expired=is_expired)

    def _check_beginning(self, stream: StreamIdentity, age: float) -> None:
        """Report messages that are missing at the edges of the stream although they can't have expired yet."""
        early, late = self._edges
        self._print_findings(late, is_chain=True)
        if self._checkpoints:
            self._print_findings(boundary_findings(self._checkpoints, stream.first, stream.last), is_chain=False)
            premature = premature_expiry_findings(self._checkpoints[-1], stream.first, age, self._now)
            self._print_findings(premature, is_chain=False)
            if note := lowered_age_limit(self._checkpoints, stream.max_age):
                click.echo(f"note: {note}", err=True)
        elif why := self._doubtful_beginning(stream, age):
            early = [Finding(1, f"the stream begins at {stream.first}, {why}"), *early]
        if self._settings.is_beginning_accepted:
            for finding in early:
                click.echo(f"note: accepted: {printable(str(finding))}", err=True)
        else:
            self._print_findings(early, is_chain=True)
            if early:
                click.echo(f"note: {_BEGINNING_ADVICE}", err=True)

    def _doubtful_beginning(self, stream: StreamIdentity, age: float) -> str:
        """Return why the stream should begin earlier; empty if its own times show nothing of that kind."""
        if stream.first == 1:
            return ""
        if not age:
            return "although nothing in it expires"
        if not has_expired(_broker_time(stream.created), age, self._now):
            return "although it is younger than its age limit"
        is_empty = stream.first > stream.last
        if is_empty and not has_expired(_broker_time(stream.last_stored_at), age, self._now):
            return "after its last message, which was not due to expire"
        return ""

    def _print_new_findings(
        self, chains: HashChainVerifier, verifier: CheckpointVerifier, progress: StreamProgress
    ) -> None:
        contradictions = verifier.pop_findings()
        if chains.notes or chains.findings or contradictions:
            progress.clear()
        for note in chains.notes:
            click.echo(f"note: {printable(str(note))}", err=True)
        chains.notes.clear()
        self._print_findings(chains.findings, is_chain=True)
        chains.findings.clear()
        self._print_findings(contradictions, is_chain=False)

    def _print_findings(self, findings: Sequence[Finding], *, is_chain: bool) -> None:
        for finding in findings:
            click.echo(printable(str(finding)))
        if is_chain:
            self._chain_findings += len(findings)
        else:
            self._other_findings += len(findings)

    def _print_summary(
        self, stream: StreamIdentity, chains: HashChainVerifier, verifier: CheckpointVerifier, seconds: float
    ) -> None:
        events, operations = format_count(chains.events, "event"), format_count(chains.operations, "operation")
        parts = [f"{stream.name}: {events} of {operations} up to sequence {stream.last} in {seconds:.1f} s"]
        if chains.truncated_operations:
            parts.append(f"{format_count(chains.truncated_operations, 'operation')} cut by age")
        if self._checkpoints and self._heads is None:
            compared = format_count(verifier.compared, "message")
            parts.append(f"{compared} as covered by {format_count(len(self._checkpoints), 'checkpoint')}")
        elif self._checkpoints:
            parts.append(f"from checkpoint {self._checkpoints[-1].number} on")
        if verifier.unproven:
            parts.append(f"{format_count(verifier.unproven, 'message')} too close to expiry to be compared any more")
        parts.append(format_count(self._chain_findings + self._other_findings, "finding"))
        click.echo(", ".join(parts), err=True)

    def _add_checkpoint(
        self, stream: StreamIdentity, chains: HashChainVerifier, builder: CheckpointBuilder, covered: int
    ) -> None:
        path, signing_key = self._settings.checkpoint, self._signing_key
        if path is None or signing_key is None:
            return
        if self._chain_findings and not self._settings.is_accepting:
            click.echo("no checkpoint was made: look into the findings, then sign with --accept-findings", err=True)
            return
        heads = encode_heads(chains.open_operations)
        checkpoint = Checkpoint(
            number=len(self._checkpoints) + 1,
            previous=self._last_line_hash,
            time=self._now,
            stream=stream.name,
            created=stream.created,
            max_age=stream.max_age,
            begin=stream.first,
            first=covered + 1,
            last=max(stream.last, covered),
            messages=builder.messages,
            findings=self._chain_findings,
            heads=hashlib.sha256(heads).hexdigest(),
            segments=builder.finish(stream.last),
        )
        line_hash = append_checkpoint(path, checkpoint, heads, signing_key)
        key = key_id(signing_key.public_key())
        which = f"checkpoint {checkpoint.number}, up to sequence {checkpoint.last}, key {key}"
        click.echo(f"{path}: {which}; SHA-256 of its line: {line_hash}", err=True)


def _broker_time(text: str) -> datetime:
    """A time as the broker writes it, in whole seconds."""
    return datetime.fromisoformat(text[:19]).replace(tzinfo=UTC)
