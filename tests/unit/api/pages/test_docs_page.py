"""The page that shows the OpenAPI document: the response for each of its files, without a server."""

from __future__ import annotations

import gzip
import re
import sys
from typing import Final

import pytest
from litestar.response.base import ASGIResponse

from opstream_api.errors import ApiError
from opstream_api.http.requests import Headers, parse_headers
from opstream_api.pages.docs_page import CONTENT_SECURITY_POLICY, DOCS_PATH, DocsPage, load_docs_page
from opstream_schemas.errors import ErrorCode

pytestmark = pytest.mark.unit

BUNDLE: Final = "docs/swagger-ui-bundle.js"
SOURCE: Final = b"console.log('hello');\n" * 100
PICTURE: Final = b"\x89PNG"


@pytest.fixture
def page() -> DocsPage:
    """A page with files that compress quickly."""
    return DocsPage({"swagger-ui-bundle.js": SOURCE, "favicon-32x32.png": PICTURE})


def sent(**headers: str) -> Headers:
    """The headers of a request."""
    return parse_headers([(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()])


def header(answer: ASGIResponse, name: str) -> str | None:
    """A header of a response."""
    return answer.headers.get(name)


def test_a_file_as_it_is(page: DocsPage) -> None:
    """A file has its media type and may be cached for a day."""
    answer = page.respond(BUNDLE, sent())
    assert (answer.status_code, answer.body) == (200, SOURCE)
    assert header(answer, "content-type") == "text/javascript; charset=utf-8"
    assert header(answer, "cache-control") == "public, max-age=86400"
    assert header(answer, "vary") == "Accept-Encoding"
    assert header(answer, "content-encoding") is None


@pytest.mark.parametrize(
    ("accepted", "is_packed"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("gzip;q=0.001", True),
        ("*;q=0, gzip", True),
        ("gzip;q=0, *", False),
        ("br", False),
        ("identity", False),
        ("", False),
    ],
)
def test_gzip_for_clients_that_accept_it(page: DocsPage, accepted: str, is_packed: bool) -> None:
    """A client that accepts gzip gets gzip."""
    answer = page.respond(BUNDLE, sent(accept_encoding=accepted))
    assert (header(answer, "content-encoding") == "gzip") == is_packed
    assert (gzip.decompress(answer.body) if is_packed else answer.body) == SOURCE


def test_no_gzip_where_it_makes_a_file_larger(page: DocsPage) -> None:
    """A picture is sent without gzip, which would make it larger."""
    answer = page.respond("docs/favicon-32x32.png", sent(accept_encoding="gzip"))
    assert (answer.body, header(answer, "content-type")) == (PICTURE, "image/png")
    assert header(answer, "content-encoding") is None


def test_a_current_client_gets_no_body(page: DocsPage) -> None:
    """A client with the current file gets 304. With and without gzip they are two representations."""
    tags = set()
    for headers in ({}, {"accept_encoding": "gzip"}):
        tag = header(page.respond(BUNDLE, sent(**headers)), "etag")
        assert tag is not None
        tags.add(tag)
        answer = page.respond(BUNDLE, sent(**headers, if_none_match=f'"other", {tag}'))
        assert (answer.status_code, answer.body, header(answer, "etag")) == (304, b"", tag)
        assert header(answer, "cache-control") == "public, max-age=86400"
        assert page.respond(BUNDLE, sent(**headers, if_none_match='"other"')).status_code == 200
    assert len(tags) == 2


@pytest.mark.parametrize(
    "path", ["", "docs/", "docs/docs", "docs/nothing.js", "docs/../docs", "init.js", "docs/LICENSE"]
)
def test_other_files_are_not_found(page: DocsPage, path: str) -> None:
    """Files that do not belong to the page are not served, even if they are next to it on disk."""
    with pytest.raises(ApiError) as caught:
        page.respond(path, sent())
    assert caught.value.code is ErrorCode.NOT_FOUND


def test_the_page_loads_what_is_served() -> None:
    """Each link leads to a served file below the page's own path, and the page has no inline script."""
    page = load_docs_page()
    answer = page.respond(DOCS_PATH, sent())
    html = answer.body.decode()
    links = re.findall(r'(?:href|src)="([^"]*)"', html)
    assert BUNDLE in links
    for link in links:
        assert link == "openapi.json" or page.respond(link, sent()).status_code == 200
    assert re.findall(r"<script[^>]*>[^<]+</script>", html) == []
    assert " style=" not in html
    assert re.search(r"\son\w+=", html) is None
    for path in (DOCS_PATH, "docs/init.js", "docs/page.css"):
        assert re.findall(rb"https?:|[\"'(]//", page.respond(path, sent()).body) == []


def test_the_page_forbids_other_hosts() -> None:
    """Its Content-Security-Policy names no host. The page is revalidated each time, so that it matches its files."""
    answer = load_docs_page().respond(DOCS_PATH, sent())
    assert header(answer, "content-type") == "text/html; charset=utf-8"
    assert header(answer, "content-security-policy") == CONTENT_SECURITY_POLICY
    assert header(answer, "cache-control") == "public, no-cache"
    rules = dict(rule.strip().split(" ", 1) for rule in CONTENT_SECURITY_POLICY.split(";"))
    assert rules["default-src"] == "'self'"
    assert "script-src" not in rules
    assert {word for rule in rules.values() for word in rule.split()} == {
        "'self'",
        "'none'",
        "'unsafe-inline'",
        "data:",
    }


def test_swagger_ui_is_read_and_not_imported() -> None:
    """Its files are read once in a process, and its package, with web frameworks, is not imported."""
    assert load_docs_page() is load_docs_page()
    assert len(load_docs_page().respond(BUNDLE, sent()).body) > 1_000_000
    assert "swagger_ui" not in sys.modules
