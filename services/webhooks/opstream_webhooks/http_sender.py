"""Sends one HTTP request to a receiver.

It follows no redirect, uses no proxy of the environment, and trusts only the status of a response. The connection goes
to an address that `address_guard` has checked, while certificate, SNI and `Host` are those of the name. Each attempt
opens a connection of its own: a kept one would belong to the address, whatever name it was opened for.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote

import certifi
import httpcore
import msgspec

from opstream_schemas.urls import Url

from .address_guard import Address, AddressRefused, Network, Resolver, permitted_addresses

CONTENT_TYPE: Final = "application/cloudevents+json"
USER_AGENT: Final = "opstream-webhooks"

_MAX_READ_BYTES: Final = 16 * 1024
_READ_SECONDS: Final = 1.0
_CONNECT_SECONDS: Final = 5.0
_MAX_ERROR_LENGTH: Final = 300
_TARGET_SAFE: Final = "%:/?[]@!$&'()*+,;=~"
"""What a request target may have besides letters, digits and `-._`; anything else of a URL is percent-encoded."""
_ERRORS: Final = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError)


class SendResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an attempt."""

    status: int = 0
    """0 if there was no response."""
    error: str = ""
    """Why there was no response, or no successful one; empty after a success."""
    retry_after: str = ""
    """The header `Retry-After`; empty for none."""
    is_final: bool = False
    """True if another attempt could not succeed."""

    @property
    def is_success(self) -> bool:
        """Return True if the receiver accepted it: any 2xx."""
        return 200 <= self.status < 300


class HttpSender:
    """Sends requests.

    Args:
        resolve: returns the addresses of a name.
        allowed: networks that may be called although they are not public.
        seconds: for a whole attempt.
        trust: certificate authorities; None for those of the system (or of `SSL_CERT_FILE`) and of certifi.
    """

    def __init__(
        self,
        resolve: Resolver,
        allowed: Sequence[Network],
        *,
        seconds: float,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._resolve = resolve
        self._allowed = tuple(allowed)
        self._seconds = seconds
        self._trust = trust or _authorities()

    async def send(self, url: Url, headers: Mapping[str, str], body: bytes) -> SendResult:
        """Send a request once. An error is part of the result; nothing is raised."""
        try:
            async with asyncio.timeout(self._seconds):
                return await self._send(url, headers, body)
        except TimeoutError:
            return SendResult(error=f"no response within {self._seconds:g} s")
        except AddressRefused as error:
            return SendResult(error=str(error))
        except OSError as error:
            return SendResult(error=_shortened(f"{url.host} can't be resolved: {error}"))
        except _ERRORS as error:
            return SendResult(error=_shortened(f"{type(error).__name__}: {error}"))

    async def _send(self, url: Url, headers: Mapping[str, str], body: bytes) -> SendResult:
        addresses = await permitted_addresses(url.host, self._resolve, self._allowed)
        *others, last = addresses
        for address in others:
            try:
                return await self._call(address, url, headers, body)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue  # nothing was sent; another address of the name may work
        return await self._call(last, url, headers, body)

    async def _call(self, address: Address, url: Url, headers: Mapping[str, str], body: bytes) -> SendResult:
        all_headers = {
            "Host": url.netloc,
            "Content-Type": CONTENT_TYPE,
            "User-Agent": USER_AGENT,
            "Accept": "*/*",
            "Connection": "close",
            **headers,
        }
        target = quote(url.path + url.query, safe=_TARGET_SAFE)
        # httpx's own transport. httpx itself would take 6 MiB, cookies and redirects on top.
        async with (
            httpcore.AsyncConnectionPool(ssl_context=self._trust) as pool,
            pool.stream(
                "POST",
                httpcore.URL(scheme=url.scheme, host=str(address), port=url.port, target=target),
                headers=list(all_headers.items()),
                content=body,
                extensions={
                    "sni_hostname": url.host,
                    "timeout": {"connect": min(_CONNECT_SECONDS, self._seconds)},
                },
            ) as response,
        ):
            await _drain_response(response)
            status, retry_after = response.status, _header(response, b"retry-after")
        error = "" if 200 <= status < 300 else _status_error(status)
        return SendResult(status=status, error=error, retry_after=retry_after)


def _authorities() -> ssl.SSLContext:
    # Those of certifi, because a slim image has none, and those of the system, for private networks.
    context = ssl.create_default_context(cafile=certifi.where())
    context.load_default_certs()
    return context


async def _drain_response(response: httpcore.Response) -> None:
    """Read a short response to its end; cut off a long or slow one. The status is known already."""
    size = 0
    try:
        async with asyncio.timeout(_READ_SECONDS):
            async for chunk in response.aiter_stream():
                size += len(chunk)
                if size > _MAX_READ_BYTES:
                    return
    except (TimeoutError, *_ERRORS):
        return


def _header(response: httpcore.Response, name: bytes) -> str:
    """Return a header of a response, all of its values if it has several; empty for none."""
    return ", ".join(value.decode("latin-1") for key, value in response.headers if key.lower() == name)


def _status_error(status: int) -> str:
    if 300 <= status < 400:
        return f"answered {status}; redirects are not followed"
    return f"answered {status}"


def _shortened(text: str) -> str:
    plain = "".join(char if char.isprintable() else " " for char in text)
    return plain if len(plain) <= _MAX_ERROR_LENGTH else plain[: _MAX_ERROR_LENGTH - 1] + "…"
