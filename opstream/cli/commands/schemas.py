"""`opstream schemas`: writes the JSON Schemas of the contract and the AsyncAPI document into a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from opstream.cli.options.option import PathType
from opstream.terminal.console import CommandError
from opstream_schemas.asyncapi import asyncapi_document
from opstream_schemas.json_schemas import json_schemas


@click.command
@click.argument("folder", metavar="DIR", type=PathType(path_type=Path, file_okay=False))
def schemas(folder: Path) -> None:
    """Write the JSON Schemas of events and operation, and asyncapi.json, into DIR, for readers in other languages.

    \b
    Example:
      opstream schemas contract
    """
    for path in write_schemas(folder):
        click.echo(path)


def write_schemas(folder: Path) -> Iterator[Path]:
    """Write `asyncapi.json` and one file per schema (`opstream.action.started.v1.json`), and yield each path.

    Raises:
        CommandError: the folder can't be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, document in {**json_schemas(), "asyncapi": asyncapi_document()}.items():
            path = folder / f"{name}.json"
            path.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
            yield path
    except OSError as error:
        raise CommandError(f"can't write to {folder} ({error.strerror}): choose another folder") from error
