"""The two actions, for `opstream up --actions bookshelf.actions`. They read the environment when the first one runs."""

from __future__ import annotations

import functools
import os
from datetime import UTC, datetime
from pathlib import Path

from opstream import ActionContext, action

from .records import Book, UploadFinish, UploadStart, UploadStarted
from .shelf import Shelf
from .storage import open_storage


@action("book:upload-start")
async def upload_start(request: UploadStart, ctx: ActionContext) -> UploadStarted:
    """Start uploading the next version of a book: returns the files to upload, and where to."""
    return await open_shelf().start(
        ctx.resource_id,
        operation_id=ctx.operation_id,
        title=request.title,
        files=request.files,
        progress=ctx.progress,
    )


@action("book:upload-finish")
async def upload_finish(request: UploadFinish, ctx: ActionContext) -> Book:
    """Verify the uploaded files and publish them as the book's next version, in place of the one before."""
    return await open_shelf().finish(
        ctx.resource_id,
        request.transaction_id,
        operation_id=ctx.operation_id,
        metadata=request.metadata,
        progress=ctx.progress,
        step=ctx.step,
    )


@functools.cache
def open_shelf() -> Shelf:
    """The shelf at `BOOKSHELF_URL`, by default the folder `.opstream/bookshelf` below the working directory.

    Raises:
        InvalidStorageUrl: the URL can't be used; the message says what to change.
    """
    url = os.environ.get("BOOKSHELF_URL") or Path.cwd().joinpath(".opstream", "bookshelf").as_uri()
    return Shelf(open_storage(url), clock=lambda: datetime.now(UTC))
