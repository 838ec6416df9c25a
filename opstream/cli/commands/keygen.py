"""`opstream keygen`: makes a key for checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from opstream.cli.options.option import PathType
from opstream.history import signing_keys

_FILE: Final = PathType(path_type=Path, dir_okay=False)


@click.command
@click.argument("path", metavar="FILE", type=_FILE)
def keygen(path: Path) -> None:
    """Write a new private key (Ed25519, PEM) to FILE, readable by you only, and print the public one.

    An existing file is never overwritten. Keep it where those who may write to the broker can't read it.

    \b
    Example:
      opstream keygen journal.key > journal.pub
    """
    signing_keys.create_key_file(path)
