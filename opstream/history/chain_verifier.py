"""What `opstream verify --chain` does: walks through a stream, checks every chain, compares the whole with checkpoints
and makes a new one. Called by `verify_command`.

The exit status is 1 if something was found, 2 for a file or key that can't be used.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from opstream.terminal.console import EXIT_INTERRUPTED, CommandError, printable
from opstream.terminal.progress_bar import StreamProgress
from opstream_journal import Connection, JournalError, NotProvisioned, connect
from opstream_journal.jetstream.stream_scan import StreamIdentity, scan_stream, stream_bounds, stream_identity
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
from opstream_schemas.text import format_count

from . import checkpoint_file as checkpoints
from . import signing_keys as keys
from .event_reader import NO_ARCHIVE


class VerifyChainSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`opstream verify --chain`."""

    servers: tuple[str, ...]
    connect_timeout: float
    """Seconds."""
    is_archive: bool
    checkpoint: Path | None
    sign: Path | None
    """The private key."""
    keys: tuple[Path, ...]
    """Public ones."""
    is_quick: bool
    """Begin behind the last checkpoint."""
    is_accepting: bool
    """Sign whatever the chains show."""


def verify_chain(settings: VerifyChainSettings) -> None:
    """Check the stream, print what is found, and sign if that is asked for.

    Raises:
        Failure: something was found, or it could not be done.
    """
    signing = keys.load_private_key(settings.sign) if settings.sign else None
    trusted = [keys.load_public_key(path) for path in settings.keys]
    if signing is not None:
        trusted.append(signing.public_key())
    signed = checkpoints.SignedCheckpoints(checkpoints=(), last_line_hash="")
    heads: dict[str, ChainHead] | None = None
    if settings.checkpoint is not None:
        signed = checkpoints.read_checkpoints(settings.checkpoint, trusted)
        if not signed.checkpoints and (signing is None or settings.is_quick):
            raise CommandError(f"{settings.checkpoint} holds no checkpoint: --sign makes the first one", status=2)
        if signing is not None:
            checkpoints.check_writable(settings.checkpoint)
        if settings.is_quick:
            heads = checkpoints.read_heads(settings.checkpoint, signed.checkpoints[-1])
    try:
        asyncio.run(ChainVerifier(settings, signed, heads, signing).run())
    except JournalError as error:
        raise CommandError(str(error)) from error
    except KeyboardInterrupt:
        raise CommandError(
            "interrupted before the end; if no checkpoint is told above, none was made", status=EXIT_INTERRUPTED
        ) from None


class ChainVerifier:
    """One walk through the stream."""

    def __init__(
        self,
        settings: VerifyChainSettings,
        signed: checkpoints.SignedCheckpoints,
        heads: dict[str, ChainHead] | None,
        signing: Ed25519PrivateKey | None,
    ) -> None:
        self._settings = settings
        self._checkpoints = signed.checkpoints
        self._last_line_hash = signed.last_line_hash
        self._heads = heads
        self._signing_key = signing
        self._now = datetime.now(UTC)
        self._newest_stored_at = 0.0
        """When the broker stored the last message that was read, seconds since 1970."""
        self._chain_findings = 0
        self._other_findings = 0

    async def run(self) -> None:
        settings = self._settings
        name = subjects.ARCHIVE_STREAM if settings.is_archive else subjects.OPERATIONS_STREAM
        if self._checkpoints and self._checkpoints[-1].stream != name:
            other = self._checkpoints[-1].stream
            raise CommandError(
                f"{settings.checkpoint} is of the stream {other}, not {name}: name another file", status=2
            )
        link = await connect(settings.servers, "opstream-verify", connect_timeout=settings.connect_timeout)
        try:
            try:
                stream = await stream_identity(link, name)
            except NotProvisioned as error:
                if not settings.is_archive:
                    raise
                raise CommandError(NO_ARCHIVE) from error
            if self._checkpoints and self._checkpoints[-1].created != stream.created:
                raise CommandError(
                    f"stream {name} was made at {stream.created}, and {settings.checkpoint} is of one that was made at "
                    f"{self._checkpoints[-1].created}: it has been replaced, so nothing of what was covered is proven"
                )
            await self._verify_stream(link, stream)
        finally:
            await link.close()

    async def _verify_stream(self, link: Connection, stream: StreamIdentity) -> None:
        covered = self._checkpoints[-1].last if self._checkpoints else stream.first - 1
        ages = [age for age in (stream.max_age, *(one.max_age for one in self._checkpoints)) if age]
        age = min(ages, default=0.0)
        begin = covered + 1 if self._heads is not None else stream.first
        check = HashChainVerifier(
            first=begin, can_expire=bool(age), heads=self._heads, is_archive=self._settings.is_archive
        )
        if stream.first > 1 and not self._checkpoints:
            self._check_beginning(stream, age)
        if self._checkpoints:
            self._print_findings(boundary_findings(self._checkpoints, stream.first, stream.last), is_chain=False)
            self._print_findings(
                premature_expiry_findings(self._checkpoints[-1], stream.first, age, self._now), is_chain=False
            )
            if note := lowered_age_limit(self._checkpoints, stream.max_age):
                click.echo(f"note: {note}", err=True)
        earlier = self._checkpoints if self._heads is None else checkpoints_with_gaps(self._checkpoints, stream.first)
        comparison = CheckpointVerifier(earlier, begin=stream.first, end=stream.last, age=age, now=self._now)
        coverer = CheckpointBuilder(covered + 1)
        began = time.monotonic()
        with StreamProgress("messages", is_plain=True) as progress:
            async for batch in scan_stream(link, stream.name, first=begin, last=stream.last):
                for one in batch:
                    if one.sequence != check.next_sequence:
                        await self._record_gap(link, stream, check, comparison, one.sequence, age)
                    body = hashlib.sha256(one.data).hexdigest()
                    check.add_message(one.sequence, one.subject, one.data, body)
                    if one.sequence <= covered:
                        comparison.add_message(one.sequence, one.subject, body, one.nanoseconds)
                    else:
                        coverer.add_message(one.sequence, one.subject, body, one.nanoseconds)
                    self._newest_stored_at = one.nanoseconds / 1e9
                self._print_new_findings(check, comparison, progress)
                progress.advance(begin, check.next_sequence - 1, stream.last)
        if check.next_sequence <= stream.last:
            await self._record_gap(link, stream, check, comparison, stream.last + 1, age)
        check.finish()
        comparison.finish()
        self._print_new_findings(check, comparison, progress)
        self._print_summary(stream, check, comparison, time.monotonic() - began)
        if self._signing_key is not None and not self._other_findings:
            self._add_checkpoint(stream, check, coverer, covered)
        if found := self._chain_findings + self._other_findings:
            raise CommandError(
                f"{format_count(found, 'finding')} in {stream.name}, told above: docs/audit.md says what each means"
            )

    async def _record_gap(
        self,
        link: Connection,
        stream: StreamIdentity,
        check: HashChainVerifier,
        comparison: CheckpointVerifier,
        until: int,
        age: float,
    ) -> None:
        """Find out why messages are missing: what expires while the walk goes on is no removal.

        They were stored after the last message that was read. If there was none, `early_findings` has looked at them.
        """
        begin = (await stream_bounds(link, stream.name)).first
        is_due = bool(age) and self._newest_stored_at + age <= datetime.now(UTC).timestamp() + CLOCK_SKEW
        is_expired = is_due and begin >= until
        if is_expired:
            comparison.advance_begin(until)
        check.add_gap(until, is_expired=is_expired)

    def _check_beginning(self, stream: StreamIdentity, age: float) -> None:
        """Tell if nothing can have expired yet of a stream that has no checkpoint."""
        what = f"the stream begins at {stream.first}"
        created = datetime.fromisoformat(stream.created[:19]).replace(tzinfo=UTC)
        if not age:
            self._print_findings([Finding(1, f"{what}, although nothing in it expires")], is_chain=True)
        elif created + timedelta(seconds=age) > self._now + timedelta(seconds=CLOCK_SKEW):
            click.echo(f"note: {what}, although it is younger than its age limit: was that raised?", err=True)

    def _print_new_findings(
        self, check: HashChainVerifier, comparison: CheckpointVerifier, progress: StreamProgress
    ) -> None:
        contradictions = comparison.pop_findings()
        if check.notes or check.findings or contradictions:
            progress.clear()
        for note in check.notes:
            click.echo(f"note: {printable(str(note))}", err=True)
        check.notes.clear()
        self._print_findings(check.findings, is_chain=True)
        check.findings.clear()
        self._print_findings(contradictions, is_chain=False)

    def _print_findings(self, findings: Sequence[Finding], *, is_chain: bool) -> None:
        for finding in findings:
            click.echo(printable(str(finding)))
        if is_chain:
            self._chain_findings += len(findings)
        else:
            self._other_findings += len(findings)

    def _print_summary(
        self, stream: StreamIdentity, check: HashChainVerifier, comparison: CheckpointVerifier, seconds: float
    ) -> None:
        events = format_count(check.events, "event")
        what = f"{stream.name}: {events} of {format_count(check.operations, 'operation')} up to sequence {stream.last}"
        parts = [f"{what} in {seconds:.1f} s"]
        if check.truncated_operations:
            parts.append(f"{format_count(check.truncated_operations, 'operation')} cut by age")
        if self._checkpoints and self._heads is None:
            parts.append(
                f"{format_count(comparison.compared, 'message')} as covered by "
                f"{format_count(len(self._checkpoints), 'checkpoint')}"
            )
        elif self._checkpoints:
            parts.append(f"from checkpoint {self._checkpoints[-1].number} on")
        if comparison.unproven:
            parts.append(
                f"{format_count(comparison.unproven, 'message')} at the edge of age not to be compared any more"
            )
        parts.append(format_count(self._chain_findings + self._other_findings, "finding"))
        click.echo(", ".join(parts), err=True)

    def _add_checkpoint(
        self, stream: StreamIdentity, check: HashChainVerifier, coverer: CheckpointBuilder, covered: int
    ) -> None:
        path, signing = self._settings.checkpoint, self._signing_key
        if path is None or signing is None:
            return
        if self._chain_findings and not self._settings.is_accepting:
            click.echo("no checkpoint was made: look into the findings, then sign with --accept-findings", err=True)
            return
        heads = checkpoints.encode_heads(check.open_operations)
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
            messages=coverer.messages,
            findings=self._chain_findings,
            heads=hashlib.sha256(heads).hexdigest(),
            segments=coverer.finish(stream.last),
        )
        line = checkpoints.append_checkpoint(path, checkpoint, heads, signing)
        which = (
            f"checkpoint {checkpoint.number}, up to sequence {checkpoint.last}, key {keys.key_id(signing.public_key())}"
        )
        click.echo(f"{path}: {which}; SHA-256 of its line: {line}", err=True)
