"""Chromium from the system, driven by Playwright, which sees this machine only; and axe, which reads pages as tools do.

async with browsing() as browser:
    visit = await browser.visit(f"{api.url}/console")
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal

import axe_playwright_python
from playwright.async_api import Browser, BrowserContext, Page, ViewportSize, async_playwright

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM: Final = next(filter(None, map(shutil.which, NAMES)), None)
REASON: Final = f"needs a browser on PATH, one of: {', '.join(NAMES)}"
ColorScheme = Literal["light", "dark"]
DESKTOP: Final[ViewportSize] = {"width": 1280, "height": 860}
PHONE: Final[ViewportSize] = {"width": 390, "height": 844}
WITHIN: Final = 10_000
"""Milliseconds within which a page shows what a test waits for."""

_OFFLINE: Final = "MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
_AXE: Final = Path(axe_playwright_python.__file__).with_name("axe.min.js")
_CONTRAST: Final = "{resultTypes: ['violations'], runOnly: {type: 'rule', values: ['color-contrast']}}"
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

    async def has_no_breaches(self) -> None:
        """Check the page as it is now: wide and on a phone, light and dark, axe finds nothing, and it fits the screen.

        Raises:
            AssertionError: with what was found.
        """
        states: tuple[tuple[ViewportSize, ColorScheme, str], ...] = (
            (DESKTOP, "light", _RULES),
            (DESKTOP, "dark", _CONTRAST),  # only colours differ
            (PHONE, "dark", _RULES),
        )
        for viewport, scheme, rules in states:
            await self.page.set_viewport_size(viewport)
            await self.page.emulate_media(color_scheme=scheme)
            found = await self.breaches(rules)
            assert not found, (viewport, scheme, found)
            beyond = await self.page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
            assert beyond <= 0, f"the page is {beyond} pixels wider than the screen {viewport}"
        await self.page.emulate_media(color_scheme="light")
        await self.page.set_viewport_size(DESKTOP)

    async def breaches(self, rules: str = _RULES) -> list[str]:
        """What axe finds: breaches of WCAG 2.1 A and AA, and of its best practices."""
        # The page's policy forbids added scripts, also those of tests, so it is run where the policy does not count.
        if not await self.page.evaluate("() => 'axe' in globalThis"):
            await self.page.evaluate(_AXE.read_text(encoding="utf-8"))
        found: dict[str, Any] = await self.page.evaluate(f"() => axe.run(document, {rules})")
        return [
            f"{breach['id']}: {node['html'][:160]} {node.get('failureSummary', '')[:300]}"
            for breach in found["violations"]
            for node in breach["nodes"]
        ]


class ConsoleBrowser:
    """One browser, and pages in it that share nothing but the files of the console.

    These come from the browser's cache: a page with a cache of its own takes twice the processor time, a second.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._shared: dict[str, BrowserContext] = {}
        self._own: list[BrowserContext] = []

    async def visit(
        self, url: str, *, has_clock: bool = False, color_scheme: ColorScheme = "light", **context: Any
    ) -> Visit:
        """Open a URL in a new tab, which knows nothing of others.

        Args:
            url: of the page.
            has_clock: gives the page a clock that a test can set forward; it goes on by itself, too.
            color_scheme: of the system.
            context: further options of Playwright's contexts, as `timezone_id`.
        """
        options = {"viewport": DESKTOP, "reduced_motion": "reduce", **context}
        if has_clock:  # it is that of all pages of a context
            session = await self._browser.new_context(**options)
            self._own.append(session)
        else:
            session = self._shared.get(repr(options)) or await self._browser.new_context(**options)
            self._shared[repr(options)] = session
        visit = Visit(await session.new_page())
        await visit.page.emulate_media(color_scheme=color_scheme)
        if has_clock:
            await visit.page.clock.install()
        await visit.page.goto(url)
        return visit

    async def forget(self) -> None:
        """Close all tabs, and what they have kept."""
        for session in self._own:
            await session.close()
        self._own.clear()
        for session in self._shared.values():
            for page in session.pages:
                if page.url.startswith("http"):
                    await page.evaluate("() => localStorage.clear()")
                await page.close()


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
