"""`/console`: pages for people that show what the public API says, and do what it lets their credentials do (ADR 0062).

The files are in `console/`, as they are sent: HTML, styles and ES modules, made by no build step. Nothing of them is
read before a browser asks for it. They hold no data and need no credentials; the requests that they send do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from litestar import route
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from opstream_api.errors import not_found
from opstream_api.http.requests import Headers, parse_headers

from .static_files import CACHE_REVALIDATED, METHODS, AnyRequest, StaticFile, file_response, refuse_options, static_file

CONSOLE_PATH: Final = "console"
"""Path of the console. Its files are below this path."""
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Nothing inline, nothing from elsewhere, and no text that a script could turn into markup."""

_FOLDER: Final = Path(__file__).parent / CONSOLE_PATH
_INDEX: Final = "index.html"
_HEADERS: Final = {"content-security-policy": CONTENT_SECURITY_POLICY, "referrer-policy": "no-referrer"}


class ConsolePage:
    """The console and its files.

    Args:
        folder: the files as they are sent.

    Raises:
        FileNotFoundError: the folder lacks the page, so the installation is broken.
    """

    def __init__(self, folder: Path = _FOLDER) -> None:
        if not (folder / _INDEX).is_file():
            raise FileNotFoundError(f"/console needs {folder / _INDEX}, which is not installed: install opstream again")
        files = (file for file in sorted(folder.rglob("*.*")) if file.name != _INDEX and file.is_file())
        self._sources = {f"{CONSOLE_PATH}/{file.relative_to(folder).as_posix()}": file for file in files}
        self._sources[CONSOLE_PATH] = folder / _INDEX
        self._read: dict[str, StaticFile] = {}

    @property
    def raw_paths(self) -> tuple[bytes, ...]:
        """Paths that need no credentials, as a request line has them."""
        return (*(f"/{path}".encode() for path in self._sources), f"/{CONSOLE_PATH}/".encode())

    def respond(self, path: str, headers: Headers) -> ASGIResponse:
        """Build the response with the page or one of its files.

        Args:
            path: the path without its first slash.
            headers: those of the request.

        Raises:
            ApiError: `NotFound`.
        """
        file = self._read.get(path)
        if file is None:
            source = self._sources.get(path)
            if source is None:
                raise not_found()
            # Each file has some kilobytes, and is read once in a process, so a thread is not worth it.
            file = self._read[path] = static_file(source.name, source.read_bytes(), CACHE_REVALIDATED)
        return file_response(file, headers, _HEADERS)


def console_routes(page: ConsolePage) -> list[HTTPRouteHandler]:
    """Return the handlers of `/console` and the paths below it."""

    @route(f"/{CONSOLE_PATH}", http_method=METHODS)
    async def console(request: AnyRequest) -> ASGIResponse:
        refuse_options(request)
        if request.scope["raw_path"].endswith(b"/"):
            # The page's links are relative to its own path, and a slash at its end would change that.
            return ASGIResponse(status_code=308, headers={"Location": f"../{CONSOLE_PATH}"})
        return page.respond(CONSOLE_PATH, parse_headers(request.scope["headers"]))

    @route([f"/{CONSOLE_PATH}/{{name:str}}", f"/{CONSOLE_PATH}/{{folder:str}}/{{name:str}}"], http_method=METHODS)
    async def console_file(request: AnyRequest) -> ASGIResponse:
        refuse_options(request)
        return page.respond(request.scope["path"].removeprefix("/"), parse_headers(request.scope["headers"]))

    return [console, console_file]
