"""Uploads and downloads with their progress: a bar on a terminal, otherwise a line every few seconds."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from opstream.terminal.console import CommandError, printable
from opstream.terminal.progress_bar import ProgressBar
from opstream_schemas.errors import ErrorCode

from .upload_option import NamedFile

if TYPE_CHECKING:
    from opstream.client import OperationsClient, Upload


def upload_all(client: OperationsClient, files: Sequence[NamedFile], operation_id: str, timeout: float) -> list[Upload]:
    """Upload files for one operation.

    Args:
        client: of the service.
        files: in the order of the options.
        operation_id: of the operation.
        timeout: seconds without progress.

    Raises:
        CommandError: the operation was submitted already.
        opstream.client.OperationsError: as `OperationsClient.upload`.
    """
    from opstream.client import RequestRefused

    uploads = []
    for file in files:
        try:
            with _progress(f"uploads {file.name}") as show:
                uploads.append(
                    client.upload(
                        file.path,
                        name=file.name,
                        media_type=file.media_type,
                        operation_id=operation_id,
                        timeout=timeout,
                        on_progress=show,
                    )
                )
        except RequestRefused as error:
            if error.code != ErrorCode.OPERATION_ID_REUSED:
                raise
            raise CommandError(
                f"operation {operation_id} was submitted before, so it takes no more files: follow it with 'opstream "
                f"status {operation_id} --wait', or choose another --operation-id"
            ) from error
    return uploads


def download_to(client: OperationsClient, operation_id: str, name: str, path: Path, timeout: float) -> Path:
    """Download a file of an operation, and return where it lies.

    Args:
        client: of the service.
        operation_id: of the operation.
        name: of the file.
        path: a file, or a folder.
        timeout: seconds without progress.

    Raises:
        CommandError: there is no such file, or it can't be written.
        opstream.client.OperationsError: as `OperationsClient.download`.
    """
    from opstream.client import InvalidRequest

    try:
        with _progress(f"downloads {name}") as show:
            return client.download(operation_id, name, path, timeout=timeout, on_progress=show)
    except InvalidRequest as error:
        raise CommandError(printable(str(error))) from error  # no wrong usage: what is there decides


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how far a transfer is, and that it begins where no bar can show it."""
    bar = ProgressBar(sys.stderr, time.monotonic)
    total = -1

    def show(done: int, size: int) -> None:
        nonlocal total
        if size != total:
            total = size
            bar.begin("bytes", size)
        bar.show(done)

    if not sys.stderr.isatty():
        click.echo(printable(what), err=True)
    try:
        yield show
    finally:
        bar.end()
