"""Streams behind proxies: a real nginx as it comes, with the lines of docs/running.md, and a proxy of HTTP/1.0."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from opstream import AsyncOperationsClient
from opstream_journal import Connection, Journal, announce_action
from opstream_schemas.events import Progressed, Succeeded
from tests.support.api.http10_proxy import speaking_http10
from tests.support.api.service import Api, OperationStory, serving, spec, started
from tests.support.broker.server import Broker, free_port
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
needs_nginx = pytest.mark.skipif(not Path(NGINX).exists(), reason="nginx is not installed")
AS_IT_COMES = "location / { proxy_pass http://127.0.0.1:8080; }"
CONFIGURATION = """\
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/errors;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    server {{ listen 127.0.0.1:{port}; {location} }}
}}
"""


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    """A service on a loopback address, with the default rules for hosts."""
    await announce_action(link, spec())
    async with serving(broker.url, allowed_hosts=()) as api:
        yield api


def documented() -> str:
    """The lines of docs/running.md."""
    page = (Path(__file__).parents[3] / "docs" / "running.md").read_text()
    [lines] = re.findall(r"```nginx\n(.*?)```", page, re.DOTALL)
    return str(lines)


@contextlib.asynccontextmanager
async def nginx(folder: Path, api: Api, location: str) -> AsyncIterator[str]:
    """A real nginx in front of the service; yield its base URL."""
    port = free_port()
    configuration = folder / "nginx.conf"
    location = location.replace("127.0.0.1:8080", f"127.0.0.1:{api.port}")
    configuration.write_text(CONFIGURATION.format(folder=folder, port=port, location=location))
    process = await asyncio.create_subprocess_exec(NGINX, "-p", folder, "-c", configuration, "-e", folder / "errors")

    def answers() -> bool:
        assert process.returncode is None, (folder / "errors").read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    try:
        await eventually(answers, within=20)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def check_stream(journal: Journal, url: str) -> None:
    """Submit, wait and follow through a proxy: each event comes when it happens, not when the stream ends."""
    async with AsyncOperationsClient(url) as client:
        operation = await client.submit("book/42:upload-start", {"title": "x"})
        story = await OperationStory.of(journal, operation.id)
        events = client.events(operation, follow=True, timeout=60)
        assert (await anext(events)).name == "requested"
        await story.append(started())
        assert (await anext(events)).name == "started"
        await story.append(Progressed(percent=1.0))
        assert (await anext(events)).name == "progressed"
        waiting = asyncio.create_task(client.wait(operation, timeout=60))
        await story.append(Succeeded(result=msgspec.Raw(b"1")))
        assert [event.name async for event in events] == ["succeeded"]
        assert (await waiting).monitor.status == "Succeeded"
        every = [event.name async for event in client.events(operation, follow=True, timeout=60)]
        assert every == ["requested", "started", "progressed", "succeeded"]


@needs_nginx
async def test_nginx_as_it_comes(api: Api, journal: Journal, tmp_path: Path) -> None:
    """It speaks HTTP/1.0 to the service and buffers answers."""
    async with nginx(tmp_path, api, AS_IT_COMES) as url:
        await check_stream(journal, url)


@needs_nginx
async def test_nginx_with_the_documented_lines(api: Api, journal: Journal, tmp_path: Path) -> None:
    """The lines of the page are a valid configuration, and do what they are for."""
    async with nginx(tmp_path, api, documented()) as url:
        await check_stream(journal, url)


async def test_a_proxy_of_http_1_0(api: Api, journal: Journal) -> None:
    """The same without nginx: requests are sent as HTTP/1.0, answers are passed on as they come."""
    story = await OperationStory.of(journal, (await api.submit()).json()["id"])
    async with speaking_http10(api.port) as url, AsyncOperationsClient(url) as client:
        events = client.events(story.operation.id, follow=True, timeout=60)
        assert (await anext(events)).name == "requested"
        await story.append(started())
        assert (await anext(events)).name == "started"
        await story.append(Succeeded(result=msgspec.Raw(b"1")))
        assert [event.name async for event in events] == ["succeeded"]
