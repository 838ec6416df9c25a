"""A reverse proxy that serves another service below a path prefix, as in production, and may change what it answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

_SENT = ("accept", "authorization", "last-event-id", "prefer")
_PASSED = ("content-type", "content-encoding", "content-security-policy", "location", "operation-stored-id")

Change = Callable[[str, bytes], bytes]
"""Returns the body of an answer to a path as a client gets it."""


def _unchanged(_path: str, body: bytes) -> bytes:
    return body


@contextmanager
def behind(target: str, prefix: str, change: Change = _unchanged) -> Iterator[str]:
    """Forward GETs below `prefix` to the service at `target`; yield the base URL. All else is 404."""
    encoding = "gzip" if change is _unchanged else "identity"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.removeprefix(prefix)
            if path == self.path:
                self.send_error(404)
                return
            sent = {name: self.headers[name] for name in _SENT if name in self.headers}
            with http.stream("GET", target + path, headers={**sent, "Accept-Encoding": encoding}) as response:
                body = change(path, b"".join(response.iter_raw()))
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
