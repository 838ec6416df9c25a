"""One HTTP request to a receiver, and what came of it. Caller: `courier.py`.

No redirect is followed, no proxy of the environment used, nothing of the answer believed but its status. The
connection goes to an address that was checked (`resolving.py`), while certificate, SNI and `Host` are those of the
name. Each attempt has a connection of its own: a kept one would belong to the address, whatever name it was opened for.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from typing import Final

import httpx
import msgspec

from opstream_schemas.urls import Url

from .address_guard import Address, AddressRefused, Network, Resolver, permitted_addresses

CONTENT_TYPE: Final = "application/cloudevents+json"
USER_AGENT: Final = "opstream-webhooks"

_MAX_READ_BYTES: Final = 16 * 1024
_READ_SECONDS: Final = 1.0
_CONNECT_SECONDS: Final = 5.0
_MAX_ERROR_LENGTH: Final = 300


class SendResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an attempt."""

    status: int = 0
    """0 without an answer."""
    error: str = ""
    """Why there was no answer, or none that counts."""
    retry_after: str = ""
    is_final: bool = False
    """Whether no other attempt could do better."""

    @property
    def is_success(self) -> bool:
        """Whether the receiver took it: any 2xx."""
        return 200 <= self.status < 300


class HttpSender:
    """Sends requests.

    Args:
        resolve: from a name to its addresses.
        allowed: networks that may be called although they are not public.
        seconds: for an attempt as a whole.
        trust: authorities that TLS trusts; None for those of the system (or of `SSL_CERT_FILE`) and of certifi.
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
        """Send once; whatever goes wrong is in the answer."""
        try:
            async with asyncio.timeout(self._seconds):
                return await self._send(url, headers, body)
        except TimeoutError:
            return SendResult(error=f"no answer within {self._seconds:g} s")
        except AddressRefused as error:
            return SendResult(error=str(error))
        except OSError as error:
            return SendResult(error=_shortened(f"{url.host} can't be resolved: {error}"))
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            return SendResult(error=_shortened(f"{type(error).__name__}: {error}"))

    async def _send(self, url: Url, headers: Mapping[str, str], body: bytes) -> SendResult:
        addresses = await permitted_addresses(url.host, self._resolve, self._allowed)
        *others, last = addresses
        for address in others:
            try:
                return await self._call(address, url, headers, body)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue  # nothing was sent; another address of the same name may be up
        return await self._call(last, url, headers, body)

    async def _call(self, address: Address, url: Url, headers: Mapping[str, str], body: bytes) -> SendResult:
        host = f"[{address}]" if address.version == 6 else str(address)
        sent = {
            "Host": url.netloc,
            "Content-Type": CONTENT_TYPE,
            "User-Agent": USER_AGENT,
            "Accept": "*/*",
            "Connection": "close",
            **headers,
        }
        # Not httpx's client, which would look into cookies and redirects as well.
        async with httpx.AsyncHTTPTransport(verify=self._trust, trust_env=False) as transport:
            timeout = httpx.Timeout(None, connect=min(_CONNECT_SECONDS, self._seconds))
            request = httpx.Request(
                "POST",
                f"{url.scheme}://{host}:{url.port}{url.path}{url.query}",
                headers=sent,
                content=body,
                extensions={"sni_hostname": url.host, "timeout": timeout.as_dict()},
            )
            response = await transport.handle_async_request(request)
            try:
                await _drain_response(response)
            finally:
                await response.aclose()
        status = response.status_code
        error = "" if 200 <= status < 300 else _status_error(status)
        return SendResult(status=status, error=error, retry_after=response.headers.get("Retry-After", ""))


def _authorities() -> ssl.SSLContext:
    # certifi's, as a slim image has none; and the system's, where those of a private network are.
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context


async def _drain_response(response: httpx.Response) -> None:
    """Let a receiver finish a short answer; a long or slow one is cut off. The status has said all by then."""
    size = 0
    try:
        async with asyncio.timeout(_READ_SECONDS):
            async for chunk in response.aiter_raw():
                size += len(chunk)
                if size > _MAX_READ_BYTES:
                    return
    except (TimeoutError, httpx.HTTPError):
        return


def _status_error(status: int) -> str:
    if 300 <= status < 400:
        return f"answered {status}; redirects are not followed"
    return f"answered {status}"


def _shortened(text: str) -> str:
    plain = "".join(char if char.isprintable() else " " for char in text)
    return plain if len(plain) <= _MAX_ERROR_LENGTH else plain[: _MAX_ERROR_LENGTH - 1] + "…"
