"""`opstream verify` and `opstream keygen`. Part of `cli`; as there, what does the work is loaded only when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from opstream.cli.options import common as options
from opstream.cli.options import history as replay_options
from opstream.cli.options.option import PathArgument

_FILE: Final = PathArgument(path_type=Path, dir_okay=False)


@click.command(short_help="Check the journal: against the view, or its hash chains.")
@options.option(
    "--chain", "is_chain", variable="CHAIN", is_flag=True, help="Check the hash chain of every operation instead."
)
@replay_options.archive_option
@options.option(
    "--checkpoint",
    variable="CHECKPOINT",
    type=_FILE,
    metavar="FILE",
    help="With --chain: compare everything with the signed checkpoints in FILE, e.g. --checkpoint journal.checkpoints.",
)
@options.option(
    "--sign",
    variable="SIGN",
    type=_FILE,
    metavar="FILE",
    help="Add a checkpoint, signed with the private key in FILE ('opstream keygen' makes one).",
)
@options.option(
    "--key",
    "keys",
    variable="KEY",
    type=_FILE,
    multiple=True,
    metavar="FILE",
    help="A public key (PEM) that checkpoints may be signed with; repeat it for older ones. The one that belongs to "
    "--sign need not be named.",
)
@options.option(
    "--from-checkpoint",
    "is_quick",
    variable="FROM_CHECKPOINT",
    is_flag=True,
    help="Begin behind the last checkpoint instead of at the beginning.",
)
@options.option(
    "--accept-findings",
    "is_accepting",
    variable="ACCEPT_FINDINGS",
    is_flag=True,
    help="Sign although the chains show findings; the checkpoint says how many.",
)
@options.nats_option
@options.connect_timeout_option
def verify(
    *,
    is_chain: bool,
    is_archive: bool,
    checkpoint: Path | None,
    sign: Path | None,
    keys: tuple[Path, ...],
    is_quick: bool,
    is_accepting: bool,
    servers: tuple[str, ...],
    connect_timeout: float,
) -> None:
    """Fold the whole journal and compare it with the view; or, with --chain, check that nobody has tampered with it.

    Each difference or finding is one line on stdout; the exit status is 0 if there is none, otherwise 1. Nothing is
    changed. docs/audit.md says what the chain and checkpoints prove, and what they don't.

    \b
    Example:
      opstream keygen journal.key > journal.pub
      opstream verify --chain --checkpoint journal.checkpoints --sign journal.key
      opstream verify --chain --checkpoint journal.checkpoints --key journal.pub
    """
    if not is_chain:
        if is_archive or checkpoint or sign or keys or is_quick or is_accepting:
            raise click.UsageError("--from-archive and all about checkpoints need --chain: add it")
        from .verify import Verify
        from .verify import verify as compare

        compare(Verify(servers=servers, connect_timeout=connect_timeout))
        return
    if checkpoint is None and (sign or keys or is_quick):
        raise click.UsageError("--sign, --key and --from-checkpoint need --checkpoint FILE: name the file")
    if checkpoint is not None and not (sign or keys):
        raise click.UsageError("a checkpoint needs a key: --key PUBLIC to compare with it, --sign PRIVATE to add one")
    if is_accepting and sign is None:
        raise click.UsageError("--accept-findings is about signing: add --sign FILE")
    from .verify_chain import Chain, check

    check(
        Chain(
            servers=servers,
            connect_timeout=connect_timeout,
            is_archive=is_archive,
            checkpoint=checkpoint,
            sign=sign,
            keys=keys,
            is_quick=is_quick,
            is_accepting=is_accepting,
        )
    )


@click.command(short_help="Make a key for checkpoints.")
@click.argument("path", metavar="FILE", type=_FILE)
def keygen(path: Path) -> None:
    """Write a new private key (Ed25519, PEM) to FILE, readable by you only, and print the public one.

    A file that is there is never overwritten. Keep it where those who may write to the broker can't read it.

    \b
    Example:
      opstream keygen journal.key > journal.pub
    """
    from opstream.history.signing_keys import keygen as make

    make(path)


COMMANDS: Final = (verify, keygen)
