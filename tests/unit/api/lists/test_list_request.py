"""The query of a list: its parameters, what is refused, and the link to the next page."""

from __future__ import annotations

from urllib.parse import parse_qs, quote, urlsplit

import pytest

from opstream_api.errors import ApiError
from opstream_api.lists.list_request import MAX_QUERY, ListRequest, parse_list_request
from opstream_index.filters.checks import parse_filter
from opstream_index.filters.order import ListOrder
from opstream_index.filters.tokens import MAX_FILTER_LENGTH, MAX_TEXT_LENGTH
from opstream_journal.runtime.http_server import MAX_URL_BYTES

pytestmark = pytest.mark.unit


def refused(query: bytes) -> tuple[str, str]:
    """Target and message of the error."""
    with pytest.raises(ApiError) as caught:
        parse_list_request(query)
    error = caught.value.body.error
    assert (caught.value.status, error.code) == (400, "InvalidParameter")
    return error.target, error.message


def test_a_query_without_parameters() -> None:
    """It asks for everything, newest first."""
    request = parse_list_request(b"")
    assert (request.term, request.order, request.size, request.cursor) == (None, ListOrder(), 100, "")


def test_the_link_to_the_next_page_repeats_the_query() -> None:
    """Whatever stands in it; only the cursor is another one."""
    text = "resourceId eq '100%&+ü''' and createdAt lt 2026-11-30T08:00:00+01:00"
    query = f"filter={quote(text)}&orderby=createdAt&maxpagesize=5&select=status&api-version=1&cursor=abc"
    request = parse_list_request(query.encode())
    assert (request.term, request.cursor) == (parse_filter(text), "abc")
    link = urlsplit(request.next_link("https://a.example/b", "xyz"))
    assert (link.scheme, link.netloc, link.path) == ("https", "a.example", "/b/status")
    assert parse_qs(link.query)["cursor"] == ["xyz"]
    again = parse_list_request(link.query.encode())
    assert again == ListRequest(
        **{name: getattr(request, name) for name in request.__struct_fields__} | {"cursor": "xyz"}
    )


@pytest.mark.parametrize(
    ("query", "target", "advice"),
    [
        (b"filtre=status", "filtre", "a list takes: filter, orderby, maxpagesize, select, cursor, api-version"),
        (b"$filter=status", "$filter", "a list takes: filter"),
        (b"top=5", "top", "a list takes: filter"),
        (b"orderby=createdAt&orderby=finishedAt", "orderby", "twice"),
        (b"orderby=status", "orderby", "createdAt, finishedAt"),
        (b"maxpagesize=0", "maxpagesize", "from 1 to 1000"),
        (b"select=input", "select", "retryOf"),
        (b"filter=", "filter", "leave the parameter out"),
        (b"filter=stat", "filter", "character 5"),
        (b"filter=attempt%20gt%203", "filter", "finds"),
        (b"filter=%ff", "", "UTF-8"),
        (b"&".join([b"a=b"] * 20), "", "at most 6"),
    ],
)
def test_what_is_refused(query: bytes, target: str, advice: str) -> None:
    """The target is the parameter, the message says what is allowed."""
    found, message = refused(query)
    assert found == target
    assert advice in message


def test_every_link_fits_into_a_url() -> None:
    """A filter that is short as text and long in a URL is refused before its first page."""
    texts = " and ".join(f"resourceId ne '{'💥' * (MAX_TEXT_LENGTH - 1)}'" for _ in range(3))
    assert len(texts) < MAX_FILTER_LENGTH
    target, message = refused(f"filter={quote(texts)}".encode())
    assert (target, str(MAX_QUERY) in message) == ("filter", True)
    assert MAX_QUERY + 1024 < MAX_URL_BYTES
