"""Writes the JSON Schemas of the contract and the AsyncAPI document into a folder. Called by `opstream schemas`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from opstream.terminal.console import Failure
from opstream_schemas.asyncapi import asyncapi
from opstream_schemas.json_schemas import schemas


def write_schemas(folder: Path) -> Iterator[Path]:
    """Write one file per schema (`operation.json`, `opstream.action.started.v1.json`) and `asyncapi.json`, yielding
    each path.

    Raises:
        Failure: the folder can't be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, document in {**schemas(), "asyncapi": asyncapi()}.items():
            path = folder / f"{name}.json"
            path.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
            yield path
    except OSError as error:
        raise Failure(f"can't write to {folder} ({error.strerror}): choose another folder") from error
