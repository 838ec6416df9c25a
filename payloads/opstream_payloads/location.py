"""The URL of a payload store: `jetstream:`, `file:///FOLDER` or `s3://BUCKET/PREFIX`. Pure."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from .errors import InvalidStoreUrl

JETSTREAM_URL: Final = "jetstream:"

_FORMS: Final = "jetstream:, file:///absolute/folder or s3://bucket/prefix"


class StoreLocation(msgspec.Struct, frozen=True):
    """Where payloads are. Without a folder and a bucket: on the broker."""

    folder: str = ""
    """Absolute path."""
    bucket: str = ""
    """Of S3."""
    prefix: str = ""
    """Of the keys in that bucket, without slashes at its ends; empty for none."""

    @property
    def shown(self) -> str:
        """Return it for a log."""
        if self.folder:
            return f"file://{self.folder}"
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/") if self.bucket else JETSTREAM_URL


def parse_store_location(text: str) -> StoreLocation:
    """Return the location that a URL names.

    Raises:
        InvalidStoreUrl: it is none.
    """
    if text == JETSTREAM_URL:
        return StoreLocation()
    try:
        parts = urlsplit(text)
        has_port = parts.port is not None
    except ValueError as error:
        raise InvalidStoreUrl(f"the URL of the payload store can't be read: {error}") from error
    if parts.query or parts.fragment or parts.username is not None or has_port:
        raise InvalidStoreUrl(
            f"the URL of a payload store has the form {_FORMS}, without a login, a port, a query and a fragment: for "
            "S3 set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL"
        )
    path = unquote(parts.path)
    if "\0" in path:
        raise InvalidStoreUrl("the URL of the payload store has a NUL character")
    if parts.scheme == "file" and parts.netloc in {"", "localhost"} and path.startswith("/") and path.strip("/"):
        return StoreLocation(folder=path.rstrip("/"))
    if parts.scheme == "s3" and parts.netloc:
        return StoreLocation(bucket=parts.netloc, prefix=path.strip("/"))
    raise InvalidStoreUrl(f"{text!r} is not the URL of a payload store: write {_FORMS}")
