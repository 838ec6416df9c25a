"""Looks at each server of the cluster as a client does that connects: does it greet, and which certificate has it?

The examination itself has one connection, to one server. What is wrong with another one shows only when a process has
to connect there. No login is sent.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from opstream_journal.errors import InvalidCredentials
from opstream_journal.wire.secure_client import NoTls, explain_tls_error, tls_context
from opstream_schemas.urls import BrokerCredentials, hide_credentials

if TYPE_CHECKING:
    from nats.aio.client import Client, Srv

_TIMEOUT: Final = 3.0
"""Seconds for one server to greet and to show its certificate."""
_GREETING: Final = b"INFO "
_TLS_SCHEME: Final = "tls"
_SCHEMES: Final = frozenset({"nats", _TLS_SCHEME})
_DEFAULT_PORT: Final = 4222


class ServerLook(msgspec.Struct, frozen=True, kw_only=True):
    """What one server shows to a client."""

    url: str
    """Without a login."""
    is_given: bool = True
    """False for one that only the cluster has named."""
    name: str = ""
    """Of the server; empty if it did not greet."""
    version: str = ""
    silence: str = ""
    """Why it does not greet; empty if it does."""
    refusal: str = ""
    """Why this process does not accept its TLS, with the next step; empty if it does, or needs none."""
    subject: str = ""
    """Of its certificate; empty without TLS."""
    ends_at: datetime | None = None
    """The end of its certificate."""


class _Greeting(msgspec.Struct, frozen=True):
    server_name: str = ""
    version: str = ""
    tls_required: bool = False
    tls_available: bool = False


_decode: Final = msgspec.json.Decoder(_Greeting).decode


async def look_at_servers(nc: Client, credentials: BrokerCredentials) -> list[ServerLook]:
    """Look at all servers that a connected client knows, at the same time, in a few seconds.

    A server that is known by two addresses is shown by the one that was given.
    """
    pool: Sequence[Srv] = [one for one in nc._server_pool if one.uri.scheme in _SCHEMES]  # noqa: SLF001 - nats-py has no public way to the name of the certificate
    looks = await asyncio.gather(*(_look(one, credentials) for one in pool))
    looks.sort(key=lambda one: (not one.is_given, one.url))
    given = {one.name for one in looks if one.is_given and one.name}
    return [one for one in looks if one.is_given or one.name not in given]


async def _look(server: Srv, credentials: BrokerCredentials) -> ServerLook:
    look = ServerLook(url=hide_credentials(server.uri.geturl()), is_given=not server.discovered)
    try:
        async with asyncio.timeout(_TIMEOUT):
            greeting, error, certificate = await _greet(server, credentials)
    except TimeoutError:
        return msgspec.structs.replace(look, silence=f"nothing came within {_TIMEOUT:g} s")
    except (OSError, ValueError, msgspec.MsgspecError, InvalidCredentials) as problem:
        why = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
        return msgspec.structs.replace(look, silence=why)
    if isinstance(error, ssl.SSLError):
        certificate = await _refused_certificate(server)
    subject, ends_at = _read_certificate(certificate)
    return msgspec.structs.replace(
        look,
        name=greeting.server_name,
        version=greeting.version,
        refusal=explain_tls_error(error, look.url),
        subject=subject,
        ends_at=ends_at,
    )


async def _greet(server: Srv, credentials: BrokerCredentials | None) -> tuple[_Greeting, Exception | None, bytes]:
    """Return a server's greeting, the error of its TLS, and its certificate (DER), which is empty without TLS.

    Args:
        server: to connect to.
        credentials: None to accept any certificate.

    Raises:
        OSError: it can't be reached.
        ValueError: what answers is no nats-server.
    """
    reader, writer = await asyncio.open_connection(server.uri.hostname, server.uri.port or _DEFAULT_PORT)
    try:
        line = await reader.readline()
        if not line.startswith(_GREETING):
            raise ValueError("what answers there is no nats-server" if line else "it closes the connection at once")
        greeting = _decode(line.removeprefix(_GREETING))
        is_wanted = credentials is None or credentials.has_tls or server.uri.scheme == _TLS_SCHEME
        if not greeting.tls_required and not (greeting.tls_available and is_wanted):
            return greeting, NoTls() if is_wanted else None, b""
        context = _any_certificate() if credentials is None else tls_context(credentials)
        try:
            await writer.start_tls(context, server_hostname=server.tls_name or server.uri.hostname)
        except ssl.SSLError as error:
            return greeting, error, b""
        return greeting, None, writer.get_extra_info("ssl_object").getpeercert(binary_form=True) or b""
    finally:
        writer.transport.abort()  # a server that is silent must not delay the end


def _any_certificate() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def _refused_certificate(server: Srv) -> bytes:
    """Return the certificate that was refused, to show whose it is; empty if it can't be had. Nothing is sent there."""
    try:
        async with asyncio.timeout(_TIMEOUT):
            _, _, certificate = await _greet(server, None)
    except (OSError, ValueError, TimeoutError, msgspec.MsgspecError):
        return b""
    return certificate


def _read_certificate(der: bytes) -> tuple[str, datetime | None]:
    """Return the subject and the end of a certificate; nothing of one that can't be read."""
    if not der:
        return "", None
    from cryptography import x509

    try:
        certificate = x509.load_der_x509_certificate(der)
        return certificate.subject.rfc4514_string(), certificate.not_valid_after_utc
    except ValueError:
        return "", None
