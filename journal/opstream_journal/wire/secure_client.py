"""nats-py's client with TLS that is asked for: files that are read at each connect, and no way around them.

nats-py takes the context once, so a certificate that was renewed would need a restart. And it goes on in plain text,
with the login, where a server does not offer TLS: what lies between the two could make any server look like one.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import Any, Final

import nats.errors
from nats.aio.client import DEFAULT_BUFFER_SIZE, Client, Srv
from nats.aio.transport import TcpTransport

from opstream_journal.errors import InvalidCredentials
from opstream_schemas.urls import BrokerCredentials, hide_credentials

_EXPIRED: Final = 10
_NOT_YET_VALID: Final = 9
_WRONG_NAMES: Final = frozenset({62, 64})
"""A host name, or an address, that the certificate does not have."""
_UNKNOWN_CA: Final = frozenset({2, 18, 19, 20, 21})
_FAREWELL: Final = 1.0
"""Seconds."""
_MISSING: Final = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE")
_REFUSED: Final = ("UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN", "CERTIFICATE_REVOKED")


class NoTls(nats.errors.Error):
    """The server does not speak TLS, and this process must not go on without."""


class PromptTransport(TcpTransport):
    """A connection that ends at once where the other side does not take part in its end.

    After a handshake that failed or was given up, nats-py waits for ever for the end of the connection below: it would
    not go on to the next server, and a start that timed out would not end. A server that is silent later would keep the
    process for the 30 s of asyncio's farewell.
    """

    async def connect_tls(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - nats-py's
        """Do the handshake; if it fails, leave nothing to wait for."""
        try:
            await super().connect_tls(*args, **options)
        except BaseException:
            if self._io_writer is not None:
                self._io_writer.transport.abort()
            self._io_writer = self._io_reader = None
            raise
        # asyncio does not call it for a transport that was upgraded. The protocol then does not know that it speaks
        # TLS, which asyncio logs at each end, and reads without a limit.
        writer = self._io_writer
        protocol = writer.transport.get_protocol() if writer is not None else None
        if writer is not None and isinstance(protocol, asyncio.StreamReaderProtocol):  # else it has ended already
            protocol.connection_made(writer.transport)

    async def wait_closed(self) -> None:
        """Wait for the other side's farewell, one second at most."""
        writer = self._io_writer
        if writer is None:
            return
        try:
            await asyncio.wait_for(super().wait_closed(), _FAREWELL)  # type: ignore[no-untyped-call]
        except TimeoutError:
            writer.transport.abort()


class SecureClient(Client):
    """A client of nats-py.

    Args:
        credentials: name the files of TLS; without any, TLS is used where the server asks for it, as in nats-py.
    """

    def __init__(self, credentials: BrokerCredentials) -> None:
        super().__init__()
        self._credentials = credentials
        self.tried = ""
        """The server to which it connects now, or tried to last, without its login."""
        self.account = ""
        """The name of the account of this login, as the broker said it at the last connect; empty if it did not."""

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """The context for the next connect, from the files as they are now.

        Raises:
            nats.errors.Error: a file can't be used; nats-py logs it, and then tries again.
        """
        try:
            return tls_context(self._credentials)
        except InvalidCredentials as error:
            raise nats.errors.Error(str(error)) from None

    async def _connect_to_server(self, s: Srv) -> None:
        self.tried = hide_credentials(s.uri.geturl())
        if s.uri.scheme in {"ws", "wss"}:
            await super()._connect_to_server(s)
            return
        s.last_attempt = time.monotonic()
        self._transport = PromptTransport()  # type: ignore[no-untyped-call]
        seconds = self.options["connect_timeout"]
        await self._transport.connect(s.uri, buffer_size=DEFAULT_BUFFER_SIZE, connect_timeout=seconds)

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:  # noqa: FBT001, FBT002 - nats-py's
        is_wanted = self._credentials.has_tls or (self._current_server and self._current_server.uri.scheme == "tls")
        if initial_connection and is_wanted and not info.get("tls_required"):
            if not info.get("tls_available"):
                raise NoTls("the server does not speak TLS")
            info["tls_required"] = True  # it takes both, and this process only one
        if info.get("connect_info"):  # follows the first PONG
            self.account = str(info.get("remote_account", ""))
        await super()._process_info(info, initial_connection)


def tried_server(client: Client) -> str:
    """Return the server to which a client connects now, or tried to last, as a text shows it."""
    return client.tried if isinstance(client, SecureClient) and client.tried else "this URL"


def tls_context(credentials: BrokerCredentials) -> ssl.SSLContext:
    """Return what to trust and to show: the files that the credentials name; else what this machine trusts.

    Raises:
        InvalidCredentials: a file can't be read, or holds something else.
    """
    try:
        context = ssl.create_default_context(cafile=credentials.tls_ca or None)
    except OSError as error:
        raise _unusable("--nats-tls-ca", credentials.tls_ca, error, "certificates") from None
    if credentials.tls_cert:
        try:
            context.load_cert_chain(credentials.tls_cert, credentials.tls_key, password=_no_password)
        except OSError as error:
            files = f"{credentials.tls_cert} and {credentials.tls_key}"
            what = "a certificate and its private key, without a password,"
            raise _unusable("--nats-tls-cert and --nats-tls-key", files, error, what) from None
    return context


def explain_tls_error(error: BaseException | None, where: str) -> str:
    """Return what is wrong with TLS and the next step; empty for an error that is not about TLS.

    Args:
        error: of a try to connect.
        where: the broker, for the text.
    """
    if isinstance(error, NoTls):
        return (
            f"the broker at {where} does not speak TLS, and this process must not go on without: configure TLS there, "
            "name another port, or leave out --nats-tls-ca and tls:// on a network that you trust"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_certificate(error, where)
    if not isinstance(error, ssl.SSLError):
        return ""
    reason = (error.reason or str(error)).upper().replace(" ", "_")
    if any(one in reason for one in _MISSING):
        return (
            f"the broker at {where} asks for a certificate of this process: give --nats-tls-cert and --nats-tls-key "
            f"({error.reason})"
        )
    if "EXPIRED" in reason:
        return f"the broker at {where} says that the certificate of --nats-tls-cert has expired: renew it"
    if any(one in reason for one in _REFUSED):
        return (
            f"the broker at {where} does not accept the certificate of this process: give --nats-tls-cert one that is "
            f"signed by a CA that the broker trusts ({error.reason})"
        )
    if "WRONG_VERSION_NUMBER" in reason or "RECORD_LAYER" in reason:
        return f"what answers at {where} does not speak TLS: is it the right port? ({error.reason})"
    return f"TLS with the broker at {where} failed ({error.reason or error}): compare its tls block with --nats-tls-ca"


def _explain_certificate(error: ssl.SSLCertVerificationError, where: str) -> str:
    code, detail = error.verify_code, error.verify_message
    if code == _EXPIRED:
        return f"the certificate of the broker at {where} has expired: renew it, and reload the broker"
    if code == _NOT_YET_VALID:
        return f"the certificate of the broker at {where} is not valid yet: compare the clocks of both machines"
    if code in _WRONG_NAMES:
        return (
            f"the certificate of the broker at {where} is for another name ({detail}): name the broker in --nats as "
            "its certificate does, or give it a certificate with this name"
        )
    if code in _UNKNOWN_CA:
        return (
            f"the certificate of the broker at {where} is not signed by a CA that this process trusts ({detail}): give "
            "--nats-tls-ca the certificate of the CA that signed it. If you did, another server may answer there"
        )
    return f"the certificate of the broker at {where} is refused ({detail}): renew it, or correct --nats-tls-ca"


def _unusable(option: str, files: str, error: OSError, what: str) -> InvalidCredentials:
    is_content = isinstance(error, ssl.SSLError)
    why = (error.reason or "not PEM") if isinstance(error, ssl.SSLError) else (error.strerror or str(error))
    step = f"name {what} in PEM" if is_content else "name files that this user may read"
    return InvalidCredentials(f"{option}: {files} can't be used ({why}): {step}")


def _no_password() -> str:
    return ""  # instead of a question on the terminal
