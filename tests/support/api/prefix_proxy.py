"""A reverse proxy that serves another service below a path prefix, as in production."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

_PASSED = ("content-type", "content-encoding", "content-security-policy", "location")


@contextmanager
def behind(target: str, prefix: str) -> Iterator[str]:
    """Forward GETs below `prefix` to the service at `target`; yield the base URL. All else is 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.removeprefix(prefix)
            if path == self.path:
                self.send_error(404)
                return
            with http.stream("GET", target + path, headers={"Accept-Encoding": "gzip"}) as response:
                body = b"".join(response.iter_raw())
            self.send_response(response.status_code)
            for name in _PASSED:
                if name in response.headers:
                    self.send_header(name, response.headers[name])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with httpx.Client(trust_env=False) as http, ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}{prefix}"
        finally:
            server.shutdown()
            thread.join()
