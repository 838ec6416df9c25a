"""Opens the object store of a URL, and hides the differences between a folder and S3."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStoreMethods, S3Store

UPLOAD_URL_LIFETIME: Final = timedelta(hours=24)
"""Lifetime of a presigned URL: at least as long as the result with it can be read."""
STORE_ERRORS: Final = (BaseError, OSError)
"""Errors of obstore that the store causes."""


class InvalidStorageUrl(ValueError):
    """The shelf can't use this URL; the message says what to change."""


class Storage:
    """An object store with server-side copies. Base of the two classes below.

    Args:
        store: any obstore store that supports `mode="create"`: without it two clients could publish the same version.
        url: base of the paths in the store, without a trailing slash.
    """

    def __init__(self, store: ObjectStoreMethods, url: str) -> None:
        self.store = store
        self._url = url

    def folder_url(self, folder: str) -> str:
        """The URL of a folder, percent-encoded, with a slash at the end."""
        return f"{self._url}/{quote(folder)}/"

    async def upload_urls(self, paths: Sequence[str]) -> list[str]:
        """The URLs to which a client uploads these files."""
        return [f"{self._url}/{quote(path)}" for path in paths]

    async def make_folder(self, folder: str) -> None:
        """Create the folder, where the store has folders."""

    async def duplicate(self, source: str, target: str) -> None:
        """Copy a file so that a change of the copy does not change the source.

        Raises:
            FileNotFoundError: the source does not exist.
        """
        await self.store.copy_async(source, target)

    async def remove_folder(self, folder: str) -> None:
        """Remove all files in a folder."""
        while found := await self.store.list(folder).collect_async():
            try:
                await self.store.delete_async([each["path"] for each in found])
            except FileNotFoundError:
                continue  # another attempt is removing the same files
            return


class LocalFolder(Storage):
    """A folder on this machine.

    Clients need access to it, so they must be trusted as much as the runner.
    """

    def __init__(self, store: ObjectStoreMethods, root: Path) -> None:
        super().__init__(store, root.as_uri())
        self._root = root

    async def make_folder(self, folder: str) -> None:
        await asyncio.to_thread((self._root / folder).mkdir, parents=True, exist_ok=True)

    async def duplicate(self, source: str, target: str) -> None:
        # LocalStore copies by hard link: a client that writes to the copy would change the published book.
        await self.store.put_async(target, await self.store.get_async(source))

    async def remove_folder(self, folder: str) -> None:
        # Not by LocalStore: it follows symbolic links to folders and would delete their files, and it fails on names
        # that are not UTF-8, which clients may leave here.
        path = self._root / folder
        await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
        if await asyncio.to_thread(path.exists):
            raise OSError(f"could not remove all of {path}")


class S3Bucket(Storage):
    """A bucket or a prefix of it, on S3 or a compatible store that supports `If-None-Match`."""

    def __init__(self, store: S3Store, url: str) -> None:
        super().__init__(store, url)
        self._signer = store

    async def upload_urls(self, paths: Sequence[str]) -> list[str]:
        return list(await obstore.sign_async(self._signer, "PUT", paths, UPLOAD_URL_LIFETIME)) if paths else []


def open_storage(url: str) -> Storage:
    """Open the store of a URL; a missing local folder is created.

    Args:
        url: `file:///absolute/folder`, or `s3://bucket/prefix`, for which obstore reads region, credentials and
            endpoint from the environment (`AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP` …).

    Raises:
        InvalidStorageUrl: the URL has another form, or the store can't be opened.
    """
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise InvalidStorageUrl(f"{url!r} must not have a query or fragment (write '?' and '#' as %3F and %23)")
    try:
        if parts.scheme == "file" and parts.netloc in {"", "localhost"} and parts.path.startswith("/"):
            root = Path(unquote(parts.path)).resolve()
            return LocalFolder(LocalStore(root, mkdir=True), root)
        if parts.scheme == "s3" and parts.netloc:
            prefix = unquote(parts.path).strip("/")
            base = f"s3://{parts.netloc}/{quote(prefix)}".rstrip("/")
            return S3Bucket(S3Store(parts.netloc, prefix=prefix or None), base)
    except (*STORE_ERRORS, ValueError) as error:
        raise InvalidStorageUrl(f"{url!r} can't be opened: {error}") from error
    raise InvalidStorageUrl(f"{url!r} must be file:///absolute/folder or s3://bucket/prefix")
