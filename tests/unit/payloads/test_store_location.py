"""The URL of a payload store."""

from __future__ import annotations

import pytest

from opstream_payloads.errors import InvalidStoreUrl
from opstream_payloads.location import StoreLocation, parse_store_location

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "location", "shown"),
    [
        ("jetstream:", StoreLocation(), "jetstream:"),
        ("file:///var/payloads", StoreLocation(folder="/var/payloads"), "file:///var/payloads"),
        ("file://localhost/a%20b/", StoreLocation(folder="/a b"), "file:///a b"),
        ("s3://bucket", StoreLocation(bucket="bucket"), "s3://bucket"),
        ("s3://bucket/a/b/", StoreLocation(bucket="bucket", prefix="a/b"), "s3://bucket/a/b"),
    ],
)
def test_what_a_url_names(text: str, location: StoreLocation, shown: str) -> None:
    """Each form of URL names one place, and is shown without what it did not say."""
    assert parse_store_location(text) == location
    assert location.shown == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "jetstream",
        "jetstream:payloads",
        "payloads",
        "/var/payloads",
        "file:payloads",
        "file:///",
        "file://other/var",
        "file:///a%00b",
        "s3:bucket",
        "s3:///prefix",
        "s3://key:secret@bucket",
        "s3://bucket:9000",
        "s3://bucket:x",
        "s3://bucket?region=x",
        "s3://bucket#x",
        "https://bucket.example",
    ],
)
def test_what_names_none(text: str) -> None:
    """Anything else is refused with the forms that there are, and no password is repeated."""
    with pytest.raises(InvalidStoreUrl) as refused:
        parse_store_location(text)
    assert "secret" not in str(refused.value)
