"""Chromium from the system, driven by Playwright, which sees this machine only; and axe, which reads pages as tools do.

async with browsing() as browser:
    visit = await browser.visit(f"{api.url}/console")
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import axe_playwright_python
from playwright.async_api import Browser, Page, async_playwright

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM: Final = next(filter(None, map(shutil.which, NAMES)), None)
REASON: Final = f"needs a browser on PATH, one of: {', '.join(NAMES)}"
DESKTOP: Final = {"width": 1280, "height": 860}
PHONE: Final = {"width": 390, "height": 844}
WITHIN: Final = 10_000
"""Milliseconds within which a page shows what a test waits for."""

_OFFLINE: Final = "MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
_AXE: Final = Path(axe_playwright_python.__file__).with_name("axe.min.js")
_RULES: Final = "{resultTypes: ['violations'], runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']}"


class Visit:
    """A page, and what the browser said about it.

    Attributes:
        page: of Playwright.
        complaints: errors of scripts, and breaches of the Content-Security-Policy.
        requests: method and URL of each request that the page has sent.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[tuple[str, str]] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda said: said.type == "error" and self.complaints.append(said.text))
        page.on("request", lambda sent: self.requests.append((sent.method, sent.url)))

    async def shows(self, selector: str, text: str = "") -> None:
        """Wait until an element is visible, with a text if one is given.

        Raises:
            TimeoutError: Playwright's; it is not there within 10 s.
        """
        found = self.page.locator(selector)
        await (found.filter(has_text=text) if text else found).first.wait_for(timeout=WITHIN)

    async def text(self, selector: str) -> str:
        """The text of the only element, as it is shown."""
        return " ".join((await self.page.locator(selector).inner_text()).split())

    async def breaches(self) -> list[str]:
        """What axe finds: breaches of WCAG 2.1 A and AA, and of its best practices."""
        # The page's policy forbids added scripts, also those of tests, so it is run where the policy does not count.
        await self.page.evaluate(_AXE.read_text(encoding="utf-8"))
        found: dict[str, Any] = await self.page.evaluate(f"() => axe.run(document, {_RULES})")
        return [
            f"{breach['id']}: {node['html'][:160]} {node.get('failureSummary', '')[:300]}"
            for breach in found["violations"]
            for node in breach["nodes"]
        ]


class ConsoleBrowser:
    """One browser, and pages in it that share nothing."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser

    async def visit(self, url: str, *, has_clock: bool = False, **context: Any) -> Visit:
        """Open a URL in a new session.

        Args:
            url: of the page.
            has_clock: gives the page a clock that a test can set forward; it goes on by itself, too.
            context: options of Playwright's, as `viewport` and `color_scheme`.
        """
        session = await self._browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **context})
        visit = Visit(await session.new_page())
        if has_clock:
            await visit.page.clock.install()
        await visit.page.goto(url)
        return visit

    async def forget(self) -> None:
        """Close all sessions."""
        for session in list(self._browser.contexts):
            await session.close()


@asynccontextmanager
async def browsing() -> AsyncIterator[ConsoleBrowser]:
    """A browser. It starts within a second."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[f"--host-resolver-rules={_OFFLINE}", "--no-sandbox", "--disable-background-networking"],
        )
        try:
            yield ConsoleBrowser(browser)
        finally:
            await browser.close()
