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

from opstream.terminal.console import INTERRUPTED, Failure, printable
from opstream.terminal.progress_bar import Progress
from opstream_journal import JournalError, Link, NotProvisioned, connect
from opstream_journal.jetstream.stream_scan import Identity, edges, identity, scan
from opstream_schemas import subjects
from opstream_schemas.integrity.chain_state import Finding, Head
from opstream_schemas.integrity.checkpoint import (
    SKEW,
    Checkpoint,
    Comparison,
    Coverer,
    cut_off,
    early_findings,
    edge_findings,
    lowered,
)
from opstream_schemas.integrity.hash_chain import ChainCheck
from opstream_schemas.text import counted

from . import checkpoint_file as checkpoints
from . import signing_keys as keys
from .event_reader import NO_ARCHIVE


class Chain(msgspec.Struct, frozen=True, kw_only=True):
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


def check(settings: Chain) -> None:
    """Check the stream, print what is found, and sign if that is asked for.

    Raises:
        Failure: something was found, or it could not be done.
    """
    signing = keys.private_key(settings.sign) if settings.sign else None
    trusted = [keys.public_key(path) for path in settings.keys]
    if signing is not None:
        trusted.append(signing.public_key())
    signed = checkpoints.Signed(checkpoints=(), line="")
    heads: dict[str, Head] | None = None
    if settings.checkpoint is not None:
        signed = checkpoints.read(settings.checkpoint, trusted)
        if not signed.checkpoints and (signing is None or settings.is_quick):
            raise Failure(f"{settings.checkpoint} holds no checkpoint: --sign makes the first one", status=2)
        if signing is not None:
            checkpoints.check_writable(settings.checkpoint)
        if settings.is_quick:
            heads = checkpoints.read_heads(settings.checkpoint, signed.checkpoints[-1])
    try:
        asyncio.run(_Walk(settings, signed, heads, signing).run())
    except JournalError as error:
        raise Failure(str(error)) from error
    except KeyboardInterrupt:
        raise Failure(
            "interrupted before the end; if no checkpoint is told above, none was made", status=INTERRUPTED
        ) from None


class _Walk:
    """One walk through the stream."""

    def __init__(
        self,
        settings: Chain,
        signed: checkpoints.Signed,
        heads: dict[str, Head] | None,
        signing: Ed25519PrivateKey | None,
    ) -> None:
        self._settings = settings
        self._before = signed.checkpoints
        self._line = signed.line
        self._heads = heads
        self._signing = signing
        self._now = datetime.now(UTC)
        self._newest = 0.0
        """When the broker stored the last message that was read, seconds since 1970."""
        self._chain_findings = 0
        self._other_findings = 0

    async def run(self) -> None:
        settings = self._settings
        name = subjects.ARCHIVE_STREAM if settings.is_archive else subjects.OPERATIONS_STREAM
        if self._before and self._before[-1].stream != name:
            other = self._before[-1].stream
            raise Failure(f"{settings.checkpoint} is of the stream {other}, not {name}: name another file", status=2)
        link = await connect(settings.servers, "opstream-verify", connect_timeout=settings.connect_timeout)
        try:
            try:
                stream = await identity(link, name)
            except NotProvisioned as error:
                if not settings.is_archive:
                    raise
                raise Failure(NO_ARCHIVE) from error
            if self._before and self._before[-1].created != stream.created:
                raise Failure(
                    f"stream {name} was made at {stream.created}, and {settings.checkpoint} is of one that was made at "
                    f"{self._before[-1].created}: it has been replaced, so nothing of what was covered is proven"
                )
            await self._walk(link, stream)
        finally:
            await link.close()

    async def _walk(self, link: Link, stream: Identity) -> None:
        covered = self._before[-1].last if self._before else stream.first - 1
        ages = [age for age in (stream.max_age, *(one.max_age for one in self._before)) if age]
        age = min(ages, default=0.0)
        begin = covered + 1 if self._heads is not None else stream.first
        check = ChainCheck(first=begin, can_expire=bool(age), heads=self._heads, is_archive=self._settings.is_archive)
        if stream.first > 1 and not self._before:
            self._look_at_beginning(stream, age)
        if self._before:
            self._tell(edge_findings(self._before, stream.first, stream.last), is_chain=False)
            self._tell(early_findings(self._before[-1], stream.first, age, self._now), is_chain=False)
            if note := lowered(self._before, stream.max_age):
                click.echo(f"note: {note}", err=True)
        earlier = self._before if self._heads is None else cut_off(self._before, stream.first)
        comparison = Comparison(earlier, begin=stream.first, end=stream.last, age=age, now=self._now)
        coverer = Coverer(covered + 1)
        began = time.monotonic()
        with Progress("messages", is_plain=True) as progress:
            async for batch in scan(link, stream.name, first=begin, last=stream.last):
                for one in batch:
                    if one.sequence != check.next_sequence:
                        await self._miss(link, stream, check, comparison, one.sequence, age)
                    body = hashlib.sha256(one.data).hexdigest()
                    check.take(one.sequence, one.subject, one.data, body)
                    if one.sequence <= covered:
                        comparison.take(one.sequence, one.subject, body, one.nanoseconds)
                    else:
                        coverer.take(one.sequence, one.subject, body, one.nanoseconds)
                    self._newest = one.nanoseconds / 1e9
                self._report(check, comparison, progress)
                progress.advance(begin, check.next_sequence - 1, stream.last)
        if check.next_sequence <= stream.last:
            await self._miss(link, stream, check, comparison, stream.last + 1, age)
        check.finish()
        comparison.finish()
        self._report(check, comparison, progress)
        self._summarise(stream, check, comparison, time.monotonic() - began)
        if self._signing is not None and not self._other_findings:
            self._sign(stream, check, coverer, covered)
        if found := self._chain_findings + self._other_findings:
            raise Failure(
                f"{counted(found, 'finding')} in {stream.name}, told above: docs/audit.md says what each means"
            )

    async def _miss(
        self, link: Link, stream: Identity, check: ChainCheck, comparison: Comparison, until: int, age: float
    ) -> None:
        """Find out why messages are missing: what expires while the walk goes on is no removal.

        They were stored after the last message that was read. If there was none, `early_findings` has looked at them.
        """
        begin = (await edges(link, stream.name)).first
        is_due = bool(age) and self._newest + age <= datetime.now(UTC).timestamp() + SKEW
        is_expired = is_due and begin >= until
        if is_expired:
            comparison.expired(until)
        check.miss(until, is_expired=is_expired)

    def _look_at_beginning(self, stream: Identity, age: float) -> None:
        """Tell if nothing can have expired yet of a stream that has no checkpoint."""
        what = f"the stream begins at {stream.first}"
        created = datetime.fromisoformat(stream.created[:19]).replace(tzinfo=UTC)
        if not age:
            self._tell([Finding(1, f"{what}, although nothing in it expires")], is_chain=True)
        elif created + timedelta(seconds=age) > self._now + timedelta(seconds=SKEW):
            click.echo(f"note: {what}, although it is younger than its age limit: was that raised?", err=True)

    def _report(self, check: ChainCheck, comparison: Comparison, progress: Progress) -> None:
        contradictions = comparison.drain()
        if check.notes or check.findings or contradictions:
            progress.clear()
        for note in check.notes:
            click.echo(f"note: {printable(str(note))}", err=True)
        check.notes.clear()
        self._tell(check.findings, is_chain=True)
        check.findings.clear()
        self._tell(contradictions, is_chain=False)

    def _tell(self, findings: Sequence[Finding], *, is_chain: bool) -> None:
        for finding in findings:
            click.echo(printable(str(finding)))
        if is_chain:
            self._chain_findings += len(findings)
        else:
            self._other_findings += len(findings)

    def _summarise(self, stream: Identity, check: ChainCheck, comparison: Comparison, seconds: float) -> None:
        events = counted(check.events, "event")
        what = f"{stream.name}: {events} of {counted(check.operations, 'operation')} up to sequence {stream.last}"
        parts = [f"{what} in {seconds:.1f} s"]
        if check.cut:
            parts.append(f"{counted(check.cut, 'operation')} cut by age")
        if self._before and self._heads is None:
            parts.append(
                f"{counted(comparison.compared, 'message')} as covered by {counted(len(self._before), 'checkpoint')}"
            )
        elif self._before:
            parts.append(f"from checkpoint {self._before[-1].number} on")
        if comparison.unproven:
            parts.append(f"{counted(comparison.unproven, 'message')} at the edge of age not to be compared any more")
        parts.append(counted(self._chain_findings + self._other_findings, "finding"))
        click.echo(", ".join(parts), err=True)

    def _sign(self, stream: Identity, check: ChainCheck, coverer: Coverer, covered: int) -> None:
        path, signing = self._settings.checkpoint, self._signing
        if path is None or signing is None:
            return
        if self._chain_findings and not self._settings.is_accepting:
            click.echo("no checkpoint was made: look into the findings, then sign with --accept-findings", err=True)
            return
        heads = checkpoints.encode_heads(check.open)
        checkpoint = Checkpoint(
            number=len(self._before) + 1,
            previous=self._line,
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
        line = checkpoints.append(path, checkpoint, heads, signing)
        which = (
            f"checkpoint {checkpoint.number}, up to sequence {checkpoint.last}, key {keys.key_id(signing.public_key())}"
        )
        click.echo(f"{path}: {which}; SHA-256 of its line: {line}", err=True)
