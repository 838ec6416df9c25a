"""`/docs`: a page that shows the OpenAPI document with Swagger UI. This process serves all its files.

The page loads nothing from other hosts. Its links are relative, so that it also works below a path prefix, and the
Content-Security-Policy forbids other sources.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

from litestar import route
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from opstream_api.errors import not_found
from opstream_api.http.requests import Headers, parse_headers

from .static_files import (
    CACHE_FOR_A_DAY,
    CACHE_REVALIDATED,
    METHODS,
    AnyRequest,
    file_response,
    refuse_options,
    static_file,
)

DOCS_PATH: Final = "docs"
"""Path of the page. Its files are below this path."""
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI sets styles of elements, and its stylesheet has its icons as data. Scripts come from files only."""

_SWAGGER: Final = "swagger_ui"
_FILES: Final = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-16x16.png", "favicon-32x32.png")

_HTML: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>opstream</title>
<link rel="icon" type="image/png" sizes="32x32" href="docs/favicon-32x32.png">
<link rel="icon" type="image/png" sizes="16x16" href="docs/favicon-16x16.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="stylesheet" href="docs/page.css">
<script src="docs/swagger-ui-bundle.js" defer></script>
<script src="docs/init.js" defer></script>
</head>
<body>
<noscript>This page needs JavaScript. The document itself is <a href="openapi.json">openapi.json</a>.</noscript>
<div id="swagger-ui"></div>
</body>
</html>
"""
_SCRIPT: Final = """\
"use strict";

// Relative to this file, so that it is found below any path prefix.
SwaggerUIBundle({
  url: new URL("../openapi.json", document.currentScript.src).href,
  dom_id: "#swagger-ui",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  filter: true,
  validatorUrl: null,
});
"""
_STYLE: Final = """\
body {
  margin: 0;
}
noscript {
  display: block;
  font-family: sans-serif;
  padding: 2em;
}
"""
_OWN_FILES: Final = MappingProxyType(
    {DOCS_PATH: _HTML.encode(), f"{DOCS_PATH}/init.js": _SCRIPT.encode(), f"{DOCS_PATH}/page.css": _STYLE.encode()}
)


class DocsPage:
    """The page and the files that it loads.

    Args:
        files: the files of Swagger UI, by name.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._assets = {f"{DOCS_PATH}/{name}": static_file(name, body, CACHE_FOR_A_DAY) for name, body in files.items()}
        self._assets |= {path: static_file(path, body, CACHE_REVALIDATED) for path, body in _OWN_FILES.items()}

    def respond(self, path: str, headers: Headers) -> ASGIResponse:
        """Build the response with the page or one of its files: with gzip if the client accepts it, 304 if it has it.

        Args:
            path: the path without its first slash.
            headers: those of the request.

        Raises:
            ApiError: `NotFound`.
        """
        asset = self._assets.get(path)
        if asset is None:
            raise not_found()
        extra = {"content-security-policy": CONTENT_SECURITY_POLICY, "referrer-policy": "no-referrer"}
        return file_response(asset, headers, extra if path == DOCS_PATH else {})


@cache
def load_docs_page() -> DocsPage:
    """Load the page with the installed Swagger UI, once in a process.

    Call it at the start of the service: it takes 50 ms and 2 MiB, which would delay requests later, and a broken
    installation fails at once.

    Raises:
        FileNotFoundError: Swagger UI is not installed, or lacks a file.
    """
    # The package is located, not imported: only its files are used.
    spec = importlib.util.find_spec(_SWAGGER)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"/docs needs the package {_SWAGGER}, which is not installed: install opstream again")
    folder = Path(spec.submodule_search_locations[0], "static")
    return DocsPage({name: (folder / name).read_bytes() for name in _FILES})


def docs_routes(page: DocsPage) -> list[HTTPRouteHandler]:
    """Return the handlers of `/docs` and the paths below it."""

    @route(f"/{DOCS_PATH}", http_method=METHODS)
    async def docs(request: AnyRequest) -> ASGIResponse:
        refuse_options(request)
        if request.scope["raw_path"].endswith(b"/"):
            # The page's links are relative to its own path, and a slash at its end would change that.
            return ASGIResponse(status_code=308, headers={"Location": f"../{DOCS_PATH}"})
        return page.respond(DOCS_PATH, parse_headers(request.scope["headers"]))

    @route(f"/{DOCS_PATH}/{{name:str}}", http_method=METHODS)
    async def asset(request: AnyRequest) -> ASGIResponse:
        refuse_options(request)
        return page.respond(f"{DOCS_PATH}/{request.path_params['name']}", parse_headers(request.scope["headers"]))

    return [docs, asset]
