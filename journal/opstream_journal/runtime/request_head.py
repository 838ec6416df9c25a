"""What a server takes as the head of a request, and in plain words why it refuses one. Pure.

The parser lets more pass than is safe: what proxies and servers may understand in different ways is refused here
(RFC 9112). `refused_by` translates the parser's own refusals.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from enum import IntEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import httptools

PROBES: Final = frozenset({b"/healthz", b"/readyz"})
"""Paths of health, the same in all services."""

_VERSIONS: Final = frozenset({"1.0", "1.1"})
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._-]{0,253}|\[(?P<v6>[0-9A-Fa-f:.]{2,45})\])(?::(?P<port>[0-9]{0,5}))?")
_LAST_PORT: Final = 65_535
_KNOWN_HOSTS: Final = 256
"""Spellings of `Host` whose verdict is kept."""
_ABSOLUTE: Final = re.compile(rb"https?://(?P<host>[^/?]+)(?P<rest>.*)", re.DOTALL | re.IGNORECASE)
_TLS: Final = b"\x16\x03"
"""How a client begins that speaks TLS."""

_OTHER_VERSION: Final = "its version is neither HTTP/1.1 nor HTTP/1.0"
_NO_LENGTH: Final = "its Content-Length is no whole number"
_TWO_FRAMINGS: Final = "it has a Content-Length and a Transfer-Encoding: send one of them"
_OTHER_CODING: Final = "it has a Transfer-Encoding other than 'chunked', alone and in HTTP/1.1"
_CAUSES: Final = MappingProxyType(
    {
        "Invalid character in Content-Length": _NO_LENGTH,
        "Empty Content-Length": _NO_LENGTH,
        "Duplicate Content-Length": "it has two Content-Length headers",
        "Content-Length overflow": "its Content-Length is too large",
        "Transfer-Encoding can't be present with Content-Length": _TWO_FRAMINGS,
        "Content-Length can't be present with Transfer-Encoding": _TWO_FRAMINGS,
        "Request has invalid `Transfer-Encoding`": _OTHER_CODING,
        "Invalid `Transfer-Encoding` header value": _OTHER_CODING,
        "Unexpected whitespace after header value": "a header goes on in a second line: write it in one",
        "Unexpected space after start line": "a space is in front of its first header",
        "Invalid header value char": "a header's value has a control character",
        "Invalid header token": (
            "a header has no ':', or a name that is empty, or a character in its name that none may have, such as a "
            "space before the ':'"
        ),
        "Invalid HTTP version": _OTHER_VERSION,
        "Expected dot": _OTHER_VERSION,
        "Pause on PRI/Upgrade": "it is HTTP/2, and this server speaks HTTP/1.1",
        "Expected HTTP/, RTSP/ or ICE/": "its path has a space, or no HTTP/1.1 follows the path",
        "Expected CRLF after version": "its first line does not end with HTTP/1.1, CR and LF",
        "Expected space after method": "it begins with no method of HTTP",
    }
)
"""By the reason that the parser (llhttp) gives. What is not here is told in words that are true for all."""
_ANY_CAUSE: Final = "it is not valid HTTP/1.1"


class Refusal(IntEnum):
    """Why a connection is refused before the app has a request: the status of the response."""

    MALFORMED = 400
    TIMED_OUT = 408
    FULL = 503


class RefusedRequest(ValueError):
    """A request that is refused before the app has it. Its text is for the client.

    Args:
        message: the whole text.
        refusal: the status of the response.
        target: the header that is wrong; empty if it is none, or not known.
    """

    def __init__(self, message: str, refusal: Refusal = Refusal.MALFORMED, *, target: str = "") -> None:
        super().__init__(message)
        self.refusal = refusal
        self.target = target


def malformed(cause: str, *, target: str = "") -> RefusedRequest:
    """Return the refusal of a request that is no valid HTTP, or beyond a bound.

    Args:
        cause: a clause of which the request is the subject.
        target: see `RefusedRequest`.
    """
    return RefusedRequest(f"the request is refused: {cause}", target=target)


NO_TUNNEL: Final = malformed("CONNECT is a method for proxies")
"""The refusal of CONNECT, to which the parser gives bytes without an end."""


def refused_by(error: BaseException, data: bytes) -> RefusedRequest:
    """Translate an error of the parser, or of what it has called.

    Args:
        error: the parser's.
        data: the bytes that it got last.
    """
    if isinstance(error, RefusedRequest):
        return error
    if isinstance(error, httptools.HttpParserCallbackError) and error.__context__ is not None:
        return refused_by(error.__context__, data)
    reason = str(error)
    if isinstance(error, httptools.HttpParserInvalidURLError):
        cause = "its target is no path, or has a character that must be percent-encoded, such as one beyond ASCII"
    elif reason in _CAUSES:
        cause = _CAUSES[reason]
    elif isinstance(error, httptools.HttpParserInvalidMethodError):
        cause = "it begins with no method of HTTP, or the body before it is longer than its Content-Length"
        if data.startswith(_TLS):
            cause = "it is TLS, and this port speaks plain HTTP: use http:// in the URL"
    elif "chunk" in reason.lower():
        cause = "the chunks of its body are not as RFC 9112, 7.1 has them: length, CR LF, data, CR LF"
    elif "CR" in reason or "LF" in reason:
        cause = "a line of its head does not end with CR and LF, or has a CR elsewhere"
    else:
        cause = _ANY_CAUSE
    return malformed(cause)


def check_head(version: str, url: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Check what the parser lets pass. Return the target without scheme and host.

    A target with a host (absolute-form) is taken if it names that of `Host`, so that all who look at either see the
    same. Sources: RFC 9112, 3.2 (target and Host), 6.1 (Transfer-Encoding).

    Args:
        version: of HTTP, as `1.1`.
        url: the target.
        headers: with names in lower case.

    Raises:
        RefusedRequest: the request is refused.
    """
    if version not in _VERSIONS:
        raise malformed(_OTHER_VERSION)
    hosts, codings = [], []
    for name, value in headers:
        if name == b"host":
            hosts.append(value)
        elif name == b"transfer-encoding":
            codings.append(value.strip().lower())
    if len(hosts) > 1:
        raise malformed("it has two Host headers", target="Host")
    if hosts and not is_host(hosts[0]):
        raise malformed("its Host header is no HOST or HOST:PORT", target="Host")
    if not hosts and version != "1.0":
        raise malformed("it needs a Host header: HOST or HOST:PORT", target="Host")
    if codings and (version == "1.0" or codings != [b"chunked"]):
        raise malformed(_OTHER_CODING, target="Transfer-Encoding")
    if b"#" in url:
        raise malformed("its target has a '#': write %23")
    return url if url.startswith(b"/") or url == b"*" else _path_of(url, hosts)


@lru_cache(maxsize=_KNOWN_HOSTS)
def is_host(value: bytes) -> bool:
    """Return True if the value of a header `Host` is a host and maybe a port, or empty as some probes send it."""
    found = _HOST.fullmatch(value)
    if found is None or int(found["port"] or 0) > _LAST_PORT:
        return False
    if found["v6"] is None:
        return True
    try:
        ipaddress.IPv6Address(found["v6"].decode())
    except ValueError:
        return False
    return True


def _path_of(url: bytes, hosts: list[bytes]) -> bytes:
    absolute = _ABSOLUTE.fullmatch(url)
    if absolute is None:
        raise malformed("its target is no path")
    if [absolute["host"].lower()] != [host.lower() for host in hosts]:
        raise malformed("its target names another host than its Host header", target="Host")
    rest = absolute["rest"]
    return rest if rest.startswith(b"/") else b"/" + rest
