"""TLS of webhooks: the connection goes to a checked address, while name and certificate are those of the URL."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from opstream_schemas.urls import parse_url
from opstream_webhooks.address_guard import Address, resolve_by_system
from opstream_webhooks.http_sender import HttpSender
from tests.support.webhooks.service import LOOPBACK

pytestmark = pytest.mark.unit

NAME = "hooks.example.org"


def make_certificate(folder: Path) -> Path:
    """A certificate of `NAME_PATTERN` that is its own authority, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


@asynccontextmanager
async def serving(certificate: Path, names: list[str | None]) -> AsyncIterator[int]:
    """A TLS server on loopback that records the requested names; yields its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda _socket, name, _context: names.append(name)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        names.append(next(line for line in head.decode().split("\r\n") if line.startswith("Host: ")))
        await reader.readexactly(2)
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


async def resolve(_host: str) -> list[Address]:
    return [ipaddress.ip_address("127.0.0.1")]


async def test_the_name_is_checked(tmp_path: Path) -> None:
    """SNI and `Host` are the URL's; a certificate of another name, or of no trusted authority, is refused."""
    path = make_certificate(tmp_path)
    names: list[str | None] = []
    trusting = HttpSender(resolve, LOOPBACK, seconds=5, trust=ssl.create_default_context(cafile=str(path)))
    wary = HttpSender(resolve, LOOPBACK, seconds=5)
    async with serving(path, names) as port:
        right = await trusting.send(parse_url(f"https://{NAME}:{port}/x"), {}, b"{}")
        assert (right.status, right.error, names) == (204, "", [NAME, f"Host: {NAME}:{port}"])
        wrong = await trusting.send(parse_url(f"https://other.example.org:{port}/x"), {}, b"{}")
        assert wrong.status == 0
        assert "certificate verify failed" in wrong.error
        assert "certificate verify failed" in (await wary.send(parse_url(f"https://{NAME}:{port}/x"), {}, b"{}")).error


async def test_an_authority_of_one_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's authorities are trusted, so that receivers in a private network can use their own certificates."""
    path = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    async with serving(path, []) as port:
        answer = await HttpSender(resolve, LOOPBACK, seconds=5).send(parse_url(f"https://{NAME}:{port}/x"), {}, b"{}")
    assert (answer.status, answer.error) == (204, "")


async def test_addresses_are_tried_in_turn() -> None:
    """If no server listens at the first address of a name, the next one is called."""

    async def two(_host: str) -> list[Address]:
        return [ipaddress.ip_address("127.0.0.2"), ipaddress.ip_address("127.0.0.1")]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = parse_url(f"http://{NAME}:{port}/", is_http_allowed=True)
        assert (await HttpSender(two, LOOPBACK, seconds=5).send(url, {}, b"")).status == 200


async def test_what_a_receiver_gets() -> None:
    """The target is the URL's, with what HTTP does not allow in it percent-encoded and nothing else changed; the body
    has its length; and `Retry-After` is handed on."""
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 503 Busy\r\nretry-after: 7\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = parse_url(f'http://{NAME}:{port}/a/../b%2Fc;d=1?q="{{x}}"&r=%22', is_http_allowed=True)
        answer = await HttpSender(resolve, LOOPBACK, seconds=5).send(url, {"webhook-id": "1"}, b"{}")
    assert (answer.status, answer.retry_after) == (503, "7")
    line, *headers = heads[0].split("\r\n")
    assert line == "POST /a/../b%2Fc;d=1?q=%22%7Bx%7D%22&r=%22 HTTP/1.1"
    assert {"Content-Length: 2", "webhook-id: 1", f"Host: {NAME}:{port}"} <= set(headers)


async def test_a_resolver_that_never_responds() -> None:
    """If the servers of a name do not respond, the attempt times out and says so."""

    async def silent(_host: str) -> list[Address]:
        await asyncio.Event().wait()
        raise AssertionError

    answer = await HttpSender(silent, (), seconds=0.1).send(parse_url(f"https://{NAME}/"), {}, b"")
    assert (answer.status, answer.error) == (0, "no response within 0.1 s")


async def test_no_thread_to_resolve_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system allows no more threads, the attempt fails and says so; the service continues."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    answer = await HttpSender(resolve_by_system, (), seconds=1).send(parse_url(f"https://{NAME}/"), {}, b"")
    assert answer.error == f"{NAME} can't be resolved: can't start new thread"
