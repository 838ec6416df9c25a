"""Where the keys of an issuer come from: over HTTP, or a file."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any, Final, Protocol

import certifi
import httpcore

from opstream_schemas.errors import InvalidName

from .errors import KeySetRefused, ProviderAway
from .jwt_settings import JwtSettings, discovery_urls, provider_url
from .strict_json import NotStrict, decode_object

FETCH_SECONDS: Final = 5.0
"""Seconds for all that one fetch takes: a request waits for it."""
MAX_DOCUMENT: Final = 256 * 1024
"""Bytes of a key set or of a discovery document. Those of large providers have 10 KiB."""
USER_AGENT: Final = "opstream-api"

_OK: Final = 200
_NOT_FOUND: Final = 404
_SERVER_ERRORS: Final = 500
_TOO_MANY: Final = 429
_ERRORS: Final = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError)


class KeySource(Protocol):
    """Where a key set comes from."""

    async def load(self) -> bytes:
        """Return the key set as it is now.

        Raises:
            ProviderAway: it can't be had now.
            KeySetRefused: there is something else, until an operator changes that.
        """


class FileSource:
    """A file with a key set.

    Args:
        path: of the file. It is read at each load, so that it may be replaced while the process runs.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    async def load(self) -> bytes:
        """Read the file; see `KeySource.load`."""
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_DOCUMENT + 1)
        except OSError as error:
            raise KeySetRefused(f"the keys of the issuer can't be read: {error} (--jwt-jwks-file)") from error
        if len(data) > MAX_DOCUMENT:
            raise KeySetRefused(f"{self._path} has more than {MAX_DOCUMENT} bytes (--jwt-jwks-file)")
        return data


class ProviderSource:
    """The identity provider itself: its key set, found by its discovery document unless the settings say where it is.

    It follows no redirect and uses no proxy of the environment.

    Args:
        settings: issuer and addresses.
        seconds: for one load.
        trust: certificate authorities; None for those of the system (or of `SSL_CERT_FILE`) and of certifi.
    """

    def __init__(
        self, settings: JwtSettings, *, seconds: float = FETCH_SECONDS, trust: ssl.SSLContext | None = None
    ) -> None:
        self._settings = settings
        self._seconds = seconds
        self._trust = trust

    async def load(self) -> bytes:
        """Fetch the key set; see `KeySource.load`."""
        try:
            async with asyncio.timeout(self._seconds):
                return await self._fetch(self._settings.jwks_url or await self._discover())
        except TimeoutError as error:
            raise ProviderAway(f"{self._settings.issuer} did not answer within {self._seconds:g} s") from error

    async def _discover(self) -> str:
        """Return where the issuer's keys are. Each load asks, since it may change."""
        urls = discovery_urls(self._settings.issuer)
        for url in urls:
            document = await self._fetch(url, is_optional=url != urls[-1])
            if document:
                return self._key_set_url(document, url)
        raise KeySetRefused(f"{self._settings.issuer} has no discovery document: name its keys with --jwt-jwks-url")

    def _key_set_url(self, document: bytes, url: str) -> str:
        try:
            members = decode_object(document)
        except NotStrict as error:
            raise KeySetRefused(f"{url} is no discovery document: {error}") from error
        issuer, found = members.get("issuer"), members.get("jwks_uri")
        if issuer != self._settings.issuer:
            # OpenID Connect Discovery 1.0, 4.3: otherwise one provider could describe itself as another.
            raise KeySetRefused(
                f"{url} describes the issuer {str(issuer)[:200]!r}: if that is the one, write --jwt-issuer exactly so"
            )
        try:
            return provider_url(found if isinstance(found, str) else "").text
        except InvalidName as error:
            raise KeySetRefused(f"{url} names no place of keys that can be trusted: {error}") from error

    async def _fetch(self, text: str, *, is_optional: bool = False) -> bytes:
        """Return the body of a response; empty if there is none and it is optional."""
        url = provider_url(text)
        target = (url.path + url.query).encode()
        headers = [("Host", url.netloc), ("User-Agent", USER_AGENT), ("Accept", "application/json")]
        try:
            async with (
                httpcore.AsyncConnectionPool(ssl_context=self._context() if url.scheme == "https" else None) as pool,
                pool.stream(
                    "GET",
                    httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=target),
                    headers=headers,
                ) as response,
            ):
                status = response.status
                body = await _read(response, url.redacted) if status == _OK else b""
        except _ERRORS as error:
            raise ProviderAway(f"{url.redacted} can't be fetched: {type(error).__name__}: {error}") from error
        if status == _OK or (is_optional and status == _NOT_FOUND):
            return body
        if status >= _SERVER_ERRORS or status == _TOO_MANY:
            raise ProviderAway(f"{url.redacted} answered {status}")
        raise KeySetRefused(f"{url.redacted} answered {status}; redirects are not followed")

    def _context(self) -> ssl.SSLContext:
        if self._trust is None:
            # Those of certifi, because a slim image has none, and those of the system, for private networks.
            self._trust = ssl.create_default_context(cafile=certifi.where())
            self._trust.load_default_certs()
        return self._trust


async def _read(response: httpcore.Response, url: str) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_stream():
        size += len(chunk)
        if size > MAX_DOCUMENT:
            raise KeySetRefused(f"{url} has more than {MAX_DOCUMENT} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def key_source(settings: JwtSettings, **given: Any) -> KeySource:  # noqa: ANN401 - of `ProviderSource`
    """Return where the keys of an issuer come from."""
    return FileSource(settings.jwks_file) if settings.jwks_file else ProviderSource(settings, **given)
