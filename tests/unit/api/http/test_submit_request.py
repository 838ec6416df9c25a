"""The head of a submit: its path, and the order in which its parts are checked."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_api.errors import ApiError
from opstream_api.http.callback_header import CallbackPolicy
from opstream_api.http.caller_identity import Caller, CallerResolver
from opstream_api.http.requests import parse_headers
from opstream_api.http.submit_request import (
    AT_ONCE,
    MAX_START_DELAY,
    IdempotencyKey,
    StartTime,
    SubmitPath,
    SubmitRequest,
    parse_submit,
    parse_submit_path,
)
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import Trace
from opstream_schemas.names import RESERVED_RESOURCES, Kind, check_resource_id

pytestmark = pytest.mark.unit

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
VALID: Mapping[str, str] = {
    "Host": "api.test:8080",
    "X-User": "ann",
    "Operation-Id": "mine",
    "Operation-Callback": "https://hooks.example/done",
    "Content-Type": "application/json",
    "traceparent": TRACEPARENT,
}


def parse(
    headers: Mapping[str, str] = VALID,
    *,
    method: str = "POST",
    path: bytes = b"/book/42:upload-start",
    query: bytes = b"",
    public_url: str = "",
) -> SubmitRequest:
    """Parse a submit whose peer is a trusted proxy."""
    network = ipaddress.ip_network("192.0.2.0/24")
    scope: Any = {
        "method": method,
        "raw_path": path,
        "query_string": query,
        "client": ("192.0.2.1", 4711),
        "scheme": "http",
    }
    return parse_submit(
        scope,
        parse_headers((name.lower().encode(), value.encode()) for name, value in headers.items()),
        callers=CallerResolver(trusted=[network], identity_header="X-User"),
        callback_policy=CallbackPolicy.parse(["hooks.example"]),
        public_url=public_url,
        new_operation_id=lambda: "generated",
    )


def test_a_submit_is_one_struct() -> None:
    """Path and headers become one value, which has all that the submit says but its input."""
    assert parse() == SubmitRequest(
        kind=Kind("book", "upload-start"),
        resource_id="42",
        key=IdempotencyKey(operation_id="mine", header="Operation-Id"),
        caller=Caller(identity="ann", client_address="192.0.2.1"),
        status_url="http://api.test:8080/status/mine",
        trace=Trace(traceparent=TRACEPARENT),
        callback="https://hooks.example/done",
    )


def test_a_submit_needs_little() -> None:
    """Without headers but `Host`, the id is generated; with a public URL, even `Host` is not needed."""
    assert parse({"Host": "api.test"}).status_url == "http://api.test/status/generated"
    assert parse({}, public_url="https://ops.example").status_url == "https://ops.example/status/generated"


def test_the_first_wrong_part_decides_the_error() -> None:
    """The parts are checked in a fixed order: path, method, query, caller, id, host, callback, content type."""
    wrong: dict[str, Any] = {"path": b"/", "method": "OPTIONS", "query": b"dry-run=1"}
    headers = {
        "X-User": "a" * 257,
        "Operation-Id": "not an id",
        "Host": "no host",
        "Operation-Callback": "https://elsewhere.example/",
        "Content-Type": "text/plain",
    }
    seen = []
    while wrong or headers:
        with pytest.raises(ApiError) as caught:
            parse({**VALID, **headers}, **wrong)
        error = caught.value
        seen.append((error.code, error.body.error.target))
        (wrong or headers).pop(next(iter(wrong or headers)))
    assert seen == [
        (ErrorCode.NOT_FOUND, ""),
        (ErrorCode.METHOD_NOT_ALLOWED, ""),
        (ErrorCode.INVALID_PARAMETER, "dry-run"),
        (ErrorCode.INVALID_HEADER, "X-User"),
        (ErrorCode.INVALID_HEADER, "Operation-Id"),
        (ErrorCode.INVALID_HEADER, "Host"),
        (ErrorCode.INVALID_HEADER, "Operation-Callback"),
        (ErrorCode.UNSUPPORTED_MEDIA_TYPE, "Content-Type"),
    ]
    assert parse()


MOMENT = datetime(2026, 11, 24, 7, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "value", "expected"),
    [
        ("Operation-Start-At", "2026-11-24T08:00:00+01:00", StartTime(at=MOMENT)),
        ("Operation-Start-At", "2026-11-24T07:00:00Z", StartTime(at=MOMENT)),
        ("Operation-Start-After", "90", StartTime(after=90)),
        ("Operation-Start-After", "0", AT_ONCE),
        ("Operation-Start-After", str(MAX_START_DELAY), StartTime(after=MAX_START_DELAY)),
    ],
)
def test_a_start_time_is_read(header: str, value: str, expected: StartTime) -> None:
    """A time is kept in UTC; seconds are kept as such, so that the same number is the same request."""
    assert parse({**VALID, header: value}).start == expected


@pytest.mark.parametrize(
    ("headers", "target"),
    [
        ({"Operation-Start-At": "2026-11-24T08:00:00"}, "Operation-Start-At"),
        ({"Operation-Start-At": "tomorrow"}, "Operation-Start-At"),
        ({"Operation-Start-At": "2026-02-30T08:00:00Z"}, "Operation-Start-At"),
        ({"Operation-Start-At": "9999-12-31T23:00:00-05:00"}, "Operation-Start-At"),
        ({"Operation-Start-At": ""}, "Operation-Start-At"),
        ({"Operation-Start-After": "1.5"}, "Operation-Start-After"),
        ({"Operation-Start-After": "-1"}, "Operation-Start-After"),
        ({"Operation-Start-After": "PT5M"}, "Operation-Start-After"),
        ({"Operation-Start-After": str(MAX_START_DELAY + 1)}, "Operation-Start-After"),
        ({"Operation-Start-At": "2026-11-24T07:00:00Z", "Operation-Start-After": "5"}, "Operation-Start-After"),
    ],
)
def test_a_start_time_that_is_none_is_refused(headers: Mapping[str, str], target: str) -> None:
    """A time needs its zone and must exist, seconds are whole and bounded, and a request has one of both."""
    with pytest.raises(ApiError) as caught:
        parse({**VALID, **headers})
    assert (caught.value.code, caught.value.body.error.target) == (ErrorCode.INVALID_HEADER, target)


@pytest.mark.parametrize(
    ("raw", "resource", "action", "resource_id"),
    [
        (b"/book/42:upload-start", "book", "upload-start", "42"),
        (b"/book:import", "book", "import", ""),
        (b"/book/new:upload-start", "book", "upload-start", "new"),
        (b"/book/a:b:c:upload-start", "book", "upload-start", "a:b:c"),
        (b"/book/42%3Aupload-start", "book", "upload-start", "42"),
        (b"/book/b%C3%BCcher:x", "book", "x", "bücher"),
        (b"/book/100%25:x", "book", "x", "100%"),
        (b"/book/%2525:x", "book", "x", "%25"),
        (b"/book/a%20b:x", "book", "x", "a b"),
        (b"/book/a+b:x", "book", "x", "a+b"),
        (b"/book/*:x", "book", "x", "*"),
        (b"/book/>:x", "book", "x", ">"),
        (b"/book/a.b:x", "book", "x", "a.b"),
        (b"/book%3ax", "book", "x", ""),
        (b"/" + b"b" * 40 + b"/1:" + b"x" * 40, "b" * 40, "x" * 40, "1"),
        (b"/book/" + b"i" * 256 + b":x", "book", "x", "i" * 256),
    ],
)
def test_a_submit_path_is_read(raw: bytes, resource: str, action: str, resource_id: str) -> None:
    """The last `:` separates, and the id is percent-decoded once."""
    expected = SubmitPath(Kind(resource, action), resource_id)
    assert parse_submit_path(raw) == expected


@pytest.mark.parametrize(
    "raw",
    [
        b"/book/..:x",
        b"/book/.:x",
        b"/book/%2e%2e:x",
        b"/book/a%2Fb:x",
        b"/book/a%2fb:x",
        b"/book/%00:x",
        b"/book/a%0Ab:x",
        b"/book/a%7Fb:x",
        b"/book/%C2%85:x",
        b"/book/:x",
        b"/book/" + b"i" * 257 + b":x",
        b"/book/" + b"%C3%BC" * 257 + b":x",
        b"/book/%ff:x",
        b"/book/%C3:x",
        b"/book/%ED%A0%80:x",
        b"/book/\xff:x",
        b"/%ff",
        b"/book/%:x",
        b"/book/%4:x",
        b"/book/%zz:x",
    ],
)
def test_a_hostile_id_is_an_invalid_parameter(raw: bytes) -> None:
    """A segment that decodes to no valid id is refused as such."""
    with pytest.raises(ApiError) as caught:
        parse_submit_path(raw)
    assert (caught.value.status, caught.value.code) == (400, ErrorCode.INVALID_PARAMETER)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"/",
        b"//",
        b"book/42:x",
        b"/book",
        b"/book/42",
        b"/book/42/",
        b"/book/42:x/",
        b"//book/42:x",
        b"/book/a/b:x",
        b"/book/../b:x",
        b"/Book/42:x",
        b"/book/42:X",
        b"/book/42:",
        b"/:x",
        b"/book_x/42:x",
        b"/b.k/42:x",
        b"/bo%2Fok/42:x",
        b"/a:b/42:x",
        b"/" + b"b" * 41 + b"/42:x",
        b"/book/42:" + b"x" * 41,
        b"/status/42:x",
        b"/docs/42:x",
        b"/metrics:x",
        b"/openapi.json:x",
        b"/healthz:x",
        b"/.well-known:x",
        b"/.well-known/agents:x",
        b"/.well-known/a/b:x",
        b"/%2ewell-known/agents:x",
        b"/.well-known%2Fagents:x",
        b"/well-known.:x",
    ],
)
def test_any_other_path_is_not_found(raw: bytes) -> None:
    """A path of another form, or with a reserved or invalid name, is not found."""
    with pytest.raises(ApiError) as caught:
        parse_submit_path(raw)
    assert (caught.value.status, caught.value.code) == (404, ErrorCode.NOT_FOUND)


@pytest.mark.parametrize("form", ["/{}:x", "/{}/42:x", "/%{:x}{}/42:x"])
@pytest.mark.parametrize("resource", sorted(RESERVED_RESOURCES))
def test_a_reserved_resource_is_not_found(form: str, resource: str) -> None:
    """No action can have a path that opstream reserves, also not percent-encoded."""
    raw = form.format(resource) if "%" not in form else form.format(ord(resource[0]), resource[1:])
    with pytest.raises(ApiError) as caught:
        parse_submit_path(raw.encode())
    assert (caught.value.status, caught.value.code) == (404, ErrorCode.NOT_FOUND)


@given(st.text().map(lambda tail: b"/.well-known/" + tail.encode("utf-8", "replace")))
def test_nothing_below_well_known_is_an_action(raw: bytes) -> None:
    """No path below `/.well-known/` is routed to an action, whatever follows."""
    with pytest.raises(ApiError):
        parse_submit_path(raw)


@given(st.binary(max_size=80).map(lambda tail: b"/" + tail))
def test_no_path_breaks_the_parser(raw: bytes) -> None:
    """Any bytes are a path or an error of the contract."""
    with contextlib.suppress(ApiError):
        found = parse_submit_path(raw).resource_id
        assert found == "" or found == check_resource_id(found)
