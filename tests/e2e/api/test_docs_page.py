"""`/docs` in a real browser that can reach only this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.support.api.prefix_proxy import behind
from tests.support.system.echo_actions import MODULE, write_actions
from tests.support.system.services import System

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM: Final = next(filter(None, map(shutil.which, NAMES)), None)
OFFLINE: Final = "MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
"""A resolver that knows no host, so that whatever a page wants from elsewhere is missing on it."""
RENDERING: Final = 20_000
"""Milliseconds of the page's own clock, which runs ahead when it has nothing to do."""
TIMEOUT: Final = 60.0

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason=f"needs a browser on PATH, one of: {', '.join(NAMES)}"),
]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with actions."""
    folder = tmp_path_factory.mktemp("docs")
    write_actions(folder)
    with ExitStack() as stack:
        system = System(folder, stack, MODULE)
        system.begin()
        yield system


class Visit:
    """A page as a browser has it in the end, and what it asked for on the way.

    Args:
        url: of the page.
        folder: for the browser's profile and log.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.origin = str(httpx.URL(url).copy_with(path="/", fragment=None)).rstrip("/")
        log = folder / "net.json"
        run = subprocess.run(
            [
                str(CHROMIUM),
                *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
                *(f"--user-data-dir={folder / 'profile'}", f"--host-resolver-rules={OFFLINE}"),
                *("--enable-logging=stderr", f"--log-net-log={log}"),
                *(f"--virtual-time-budget={RENDERING}", "--dump-dom", url),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
            env={**os.environ, "HOME": str(folder)},
        )
        assert run.returncode == 0, run.stderr
        self.dom = run.stdout
        self.complaints = [line for line in run.stderr.splitlines() if ":CONSOLE" in line]
        """What it wrote into the browser's console: errors of scripts, breaches of the Content-Security-Policy."""
        self.requests = list(self._requests(json.loads(log.read_text(encoding="utf-8"))))
        """URLs that the page asked for; the browser's own wishes, which it has in spite of all options, aside."""

    def _requests(self, log: dict[str, Any]) -> Iterator[str]:
        begun = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
        for event in log["events"]:
            details = event.get("params", {})
            if event["type"] == begun and details.get("initiator") == self.origin:
                yield details["url"]


Browse = Callable[[str], Visit]


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    """Opens a URL."""
    return lambda url: Visit(url, tmp_path)


def test_the_page_names_every_action(system: System, http: httpx.Client, browse: Browse) -> None:
    """With its summary, and so every path of the document. The page loads only from the service, and breaks no rule of
    its own policy.
    """
    visit = browse(f"{system.api}/docs")
    document = http.get(f"{system.api}/openapi.json").json()
    assert len(document["paths"]) > 7
    shown = re.findall(r'data-path="([^"]*)"', visit.dom)  # once for each method
    assert shown == [path for path, methods in document["paths"].items() for _ in methods]
    for summary in ("Give the words back.", "Wait until stopped; the second attempt succeeds."):
        assert summary in visit.dom
    assert visit.complaints == []
    assert {url.removeprefix(system.api) for url in visit.requests} == {
        "/docs/favicon-32x32.png",
        "/docs/init.js",
        "/docs/page.css",
        "/docs/swagger-ui-bundle.js",
        "/docs/swagger-ui.css",
        "/openapi.json",
    }


def test_a_link_to_an_action_opens_it(system: System, browse: Browse) -> None:
    """With its parameters, the example of its input, its responses and their headers."""
    visit = browse(f"{system.api}/docs#/echo/echo.say")
    text = re.sub(r"<[^>]*>", "", visit.dom)
    for shown in (
        "Operation-Id",
        "Repeatability-First-Sent",
        '"text"',
        "Operation-Location",
        "OperationIdReused",
        "503",
    ):
        assert shown in text, shown
    assert visit.complaints == []


def test_behind_a_path_prefix(system: System, browse: Browse) -> None:
    """A proxy may serve the API below any path: the page finds its files and the document there."""
    with behind(system.api, "/books/api") as url:
        visit = browse(f"{url}/docs")
    assert 'data-path="/echo/{id}:say"' in visit.dom
    assert visit.complaints == []
    assert f"{url}/openapi.json" in visit.requests
    assert all(asked.startswith(url) for asked in visit.requests)
