"""The shelf starts and publishes versions of books on an object store. It knows no broker.

Each of its methods may be killed at any line and run again, or run twice at once, and ends in the same state:

- Ids are derived from the operation's id, so all attempts work on the same objects.
- A transaction says at its start which version number it is for. `book:upload-finish` publishes by creating the record
  of that number, which succeeds only once: records are never changed or removed. So one of several transactions for the
  same number wins; the others were made from an outdated version, and fail as `ClientOutOfDate`.
- The files of a version lie in a folder that only its transaction writes, complete before the record exists.
- An attempt that fails reads the record first: the winner may have removed the files that it misses.
- Old files are removed last; a retry or the next version repeats that.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from opstream import ActionError

from .input_rules import check_files, check_metadata
from .layout import TRANSACTION_ID, Layout, book_id_for, folder_number, record_number, transaction_id_for
from .objects import WrongHash, copy_verified, create_record, read_record
from .records import (
    AnnouncedFile,
    Book,
    FileToUpload,
    PublishedFile,
    Transaction,
    UploadStarted,
    Version,
)
from .storage import STORE_ERRORS, Storage

if TYPE_CHECKING:  # obstore has these two for type checkers only
    from obstore import ListResult, ObjectMeta

_log = logging.getLogger(__name__)

Progress = Callable[[float, str], Awaitable[None]]
"""Called with a percentage, 0 to 100, and a text."""
Step = Callable[..., Awaitable[Any]]
"""`ActionContext.step`: name, function, its arguments and `key`."""

FILES_A_STEP = 16
"""Files that are verified in one step. A later attempt begins behind the last whole one."""


async def run_step(_name: str, function: Callable[..., Awaitable[Any]], *args: Any, key: object = "") -> Any:  # noqa: ANN401, ARG001
    """Run a step, and remember nothing: for callers without an operation."""
    return await function(*args)


class Shelf:
    """The books in one storage.

    Args:
        clock: the time in UTC, for `publishedAt`.
    """

    def __init__(self, storage: Storage, *, clock: Callable[[], datetime]) -> None:
        self._storage = storage
        self._store = storage.store
        self._clock = clock

    async def start(
        self,
        resource_id: str,
        *,
        operation_id: str,
        title: str,
        files: Sequence[AnnouncedFile],
        progress: Progress,
    ) -> UploadStarted:
        """Open a transaction for the next version of a book, and copy unchanged files into its upload folder.

        Args:
            resource_id: the book's id, known or not, or `new`.

        Raises:
            ActionError: `InvalidBook`, `InvalidFiles`; `ClientOutOfDate`: another version was published meanwhile.
        """
        check_files(files)
        if not resource_id:
            raise ActionError("InvalidBook", "say which book: /book/{id}:upload-start or /book/new:upload-start")
        book_id = book_id_for(resource_id, operation_id)
        layout = Layout(book_id)
        transaction = await self._open_transaction(
            layout, transaction_id_for(operation_id), book_id=book_id, title=title, files=files
        )
        uploads = layout.uploads(transaction.version, transaction.transaction_id)
        try:
            await self._storage.make_folder(uploads)
            unchanged = await self._copy_unchanged(layout, transaction, uploads, progress)
        except STORE_ERRORS:
            # Publishing the next version removes the one that is being copied.
            await self._refuse_if_published(layout, transaction)
            raise
        await self._refuse_if_published(layout, transaction)
        missing = [file.path for file in transaction.files if file.path not in unchanged]
        urls = await self._storage.upload_urls([f"{uploads}/{path}" for path in missing])
        return UploadStarted(
            transaction_id=transaction.transaction_id,
            book_id=book_id,
            version=transaction.version,
            upload_url=self._storage.folder_url(uploads),
            files_to_upload=[FileToUpload(path=path, upload_url=url) for path, url in zip(missing, urls, strict=True)],
            files_unchanged=len(unchanged),
        )

    async def finish(
        self,
        book_id: str,
        transaction_id: str,
        *,
        operation_id: str,
        metadata: dict[str, Any],
        progress: Progress,
        step: Step = run_step,
    ) -> Book:
        """Verify the uploaded files, publish them as the book's next version and remove the one before.

        Returns:
            The published record, also if an earlier attempt of the same operation has published it.

        Raises:
            ActionError: `InvalidMetadata`; `UnknownTransaction`; `MissingFile`, `WrongHash`: correct it and finish
                again; `TransactionFinished`: another operation has published it; `ClientOutOfDate`: start again.
        """
        check_metadata(metadata)
        layout = Layout(book_id)
        known = TRANSACTION_ID.fullmatch(transaction_id)
        transaction = await read_record(self._store, layout.transaction(transaction_id), Transaction) if known else None
        if transaction is None:
            raise ActionError(
                "UnknownTransaction", f"book {book_id} has no transaction {transaction_id}", target="transactionId"
            )
        published = await self._version(layout, transaction.version)
        if published is None:
            published = await self._publish(layout, transaction, operation_id, metadata, progress, step)
        await self._clean_up(layout, published, transaction_id)
        if published.operation_id != operation_id:
            raise _already_finished(published)
        return published.book

    async def _open_transaction(
        self, layout: Layout, transaction_id: str, *, book_id: str, title: str, files: Sequence[AnnouncedFile]
    ) -> Transaction:
        path = layout.transaction(transaction_id)
        opened = await read_record(self._store, path, Transaction)
        if opened is not None:
            return opened
        number = _highest_version(await self._store.list_with_delimiter_async(layout.versions)) + 1
        transaction = Transaction(
            transaction_id=transaction_id, book_id=book_id, title=title, version=number, files=list(files)
        )
        return await create_record(self._store, path, transaction)

    async def _version(self, layout: Layout, number: int) -> Version | None:
        return await read_record(self._store, layout.version(number), Version)

    async def _copy_unchanged(
        self, layout: Layout, transaction: Transaction, uploads: str, progress: Progress
    ) -> set[str]:
        base = await self._version(layout, transaction.version - 1)
        if base is None:
            return set()
        source = layout.files(base.book.version, base.transaction_id)
        before = {file.path: file.sha256 for file in base.book.files}
        unchanged = [file.path for file in transaction.files if before.get(file.path) == file.sha256]
        for count, path in enumerate(unchanged):
            await progress(100 * count / len(unchanged), f"copying {path}")
            await self._storage.duplicate(f"{source}/{path}", f"{uploads}/{path}")
        return set(unchanged)

    async def _publish(
        self,
        layout: Layout,
        transaction: Transaction,
        operation_id: str,
        metadata: dict[str, Any],
        progress: Progress,
        step: Step,
    ) -> Version:
        """Publish, or return the version that another attempt or transaction has published."""
        path = layout.version(transaction.version)
        try:
            files = await self._verify(layout, transaction, progress, step)
            book = Book(
                book_id=transaction.book_id,
                version=transaction.version,
                title=transaction.title,
                metadata=metadata,
                files=files,
                published_at=self._clock(),
            )
            version = Version(transaction_id=transaction.transaction_id, operation_id=operation_id, book=book)
            return await create_record(self._store, path, version)
        except (ActionError, *STORE_ERRORS):
            # A winner removes all upload folders; and a put without a response may have published.
            published = await read_record(self._store, path, Version)
            if published is None:
                raise
            return published

    async def _verify(
        self, layout: Layout, transaction: Transaction, progress: Progress, step: Step
    ) -> list[PublishedFile]:
        source = layout.uploads(transaction.version, transaction.transaction_id)
        target = layout.files(transaction.version, transaction.transaction_id)
        verified: list[PublishedFile] = []
        for first in range(0, len(transaction.files), FILES_A_STEP):
            # The arguments are what a later attempt compares; what only reports is bound before.
            verify = functools.partial(self._verify_files, progress, len(transaction.files))
            files = transaction.files[first : first + FILES_A_STEP]
            verified += await step("verify", verify, source, target, first, files, key=first)
        return verified

    async def _verify_files(
        self, progress: Progress, count: int, source: str, target: str, first: int, files: list[AnnouncedFile]
    ) -> list[PublishedFile]:
        verified: list[PublishedFile] = []
        for index, file in enumerate(files, start=first):

            async def seen(part: float, index: int = index, path: str = file.path) -> None:
                await progress(100 * (index + part) / count, f"verifying {path}")

            try:
                size = await copy_verified(
                    self._store, f"{source}/{file.path}", f"{target}/{file.path}", file.sha256, seen
                )
            except FileNotFoundError as error:
                raise ActionError(
                    "MissingFile", f"{file.path} was announced, but not uploaded", target=f"files[{index}].path"
                ) from error
            except WrongHash as error:
                raise ActionError(
                    "WrongHash",
                    f"{file.path} was announced with SHA-256 {file.sha256}, but has {error.actual}",
                    target=f"files[{index}].sha256",
                ) from error
            verified.append(PublishedFile(path=file.path, sha256=file.sha256, size=size))
        return verified

    async def _refuse_if_published(self, layout: Layout, transaction: Transaction) -> None:
        published = await self._version(layout, transaction.version)
        if published is not None:
            await self._clean_up(layout, published, transaction.transaction_id)
            raise _already_finished(published)

    async def _clean_up(self, layout: Layout, published: Version, transaction_id: str) -> None:
        """Clean up after a version was published.

        Raises:
            ActionError: `ClientOutOfDate`: another transaction has published it.
        """
        number = published.book.version
        won = published.transaction_id == transaction_id
        try:
            own = [layout.uploads(number, transaction_id), layout.files(number, transaction_id)]
            for folder in await self._obsolete_folders(layout, published) if won else own:
                await self._storage.remove_folder(folder)
        except STORE_ERRORS as error:
            # A published version must not be reported as failed because of leftovers; the next version cleans them up.
            _log.warning("could not clean up after version %d of %s: %s", number, published.book.book_id, error)
        if not won:
            raise ActionError("ClientOutOfDate", f"version {number} was published meanwhile; start again from it")

    async def _obsolete_folders(self, layout: Layout, published: Version) -> list[str]:
        """Folders of older versions, and of all transactions for this one; not those for the next version."""
        number = published.book.version
        versions = await self._store.list_with_delimiter_async(layout.versions)
        # In a late attempt, its own version may be outdated.
        latest = _highest_version(versions)
        obsolete = [folder for folder in versions["common_prefixes"] if 0 < folder_number(folder) < latest]
        if number == latest:
            kept = layout.files(number, published.transaction_id)
            competitors = await self._store.list_with_delimiter_async(layout.candidates(number))
            obsolete += [folder for folder in competitors["common_prefixes"] if folder.rstrip("/") != kept]
            obsolete.append(layout.all_uploads(number))
        return obsolete


def _highest_version(versions: ListResult[Sequence[ObjectMeta]]) -> int:
    return max((record_number(each["path"]) for each in versions["objects"]), default=0)


def _already_finished(published: Version) -> ActionError:
    return ActionError(
        "TransactionFinished", f"it was published as version {published.book.version}", target="transactionId"
    )
