"""URLs: of the service, of actions, of operations. Pure; called by the flows."""

from __future__ import annotations

import base64
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

from opstream_schemas.errors import InvalidName
from opstream_schemas.names import Kind, check_operation_id, check_resource_id
from opstream_schemas.urls import hide_credentials

from .errors import InvalidRequest

_PORTS: Final = {"http": 80, "https": 443}


class ServiceUrls:
    """Where the service is.

    Args:
        url: `https://HOST` or `https://HOST/PATH`; a `USER:PASSWORD@` in it becomes Basic authentication.

    Attributes:
        base: the URL without credentials and without a slash at its end.
        authorization: a value for the header `Authorization`; empty without credentials.

    Raises:
        InvalidRequest: the URL has another form.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            self._origin = _origin(parts)
        except ValueError:
            self._origin = ("", "", None)
        scheme, host, _ = self._origin
        if scheme not in _PORTS or not host or parts.query or parts.fragment:
            raise InvalidRequest(
                f"{hide_credentials(url)!r} is not a base URL: write https://HOST or https://HOST/PATH"
            )
        netloc = parts.netloc.rpartition("@")[2]
        self._path = parts.path.rstrip("/")
        self.base = f"{scheme}://{netloc}{self._path}"
        self.authorization = _basic_authorization(parts)

    def action(self, target: str) -> str:
        """The URL to submit to.

        Args:
            target: `resource/id:action` or `resource:action`, the id as it is, not percent-encoded.

        Raises:
            InvalidRequest: it has another form.
        """
        resource, slash, rest = target.removeprefix("/").partition("/")
        try:
            if not slash:
                return f"{self.base}/{Kind.parse_routable(resource)}"
            name, _, action = rest.rpartition(":")
            kind = Kind.parse_routable(f"{resource}:{action}")
            return f"{self.base}/{kind.resource}/{quote(check_resource_id(name), safe='')}:{kind.action}"
        except InvalidName as error:
            message = f"{target!r} is no target: write 'book/42:upload-start' or 'book:reindex' ({error})"
            raise InvalidRequest(message) from error

    def status(self, operation_id: str, location: str | None = None) -> str:
        """The URL of an operation's status.

        Args:
            operation_id: the operation's id.
            location: what the service said in `Operation-Location`, if it did.

        Raises:
            InvalidRequest: no operation has such an id.
        """
        try:
            own = f"{self.base}/status/{check_operation_id(operation_id)}"
        except InvalidName as error:
            raise InvalidRequest(str(error)) from error
        # Behind a proxy, and without --public-url, the service can only guess what it is called. And wherever else an
        # answer points, credentials that were meant for this service must not follow.
        return location if location and self._is_below_base(location) else own

    def _is_below_base(self, location: str) -> bool:
        try:
            parts = urlsplit(location)
            is_same = _origin(parts) == self._origin and "@" not in parts.netloc
        except ValueError:
            return False
        is_plain = location.isascii() and location.isprintable()
        is_below = parts.path.startswith(f"{self._path}/") and ".." not in parts.path
        return is_plain and is_same and is_below and not parts.query and not parts.fragment


def _origin(parts: SplitResult) -> tuple[str, str, int | None]:
    scheme = parts.scheme.lower()
    return scheme, parts.hostname or "", parts.port or _PORTS.get(scheme)


def _basic_authorization(parts: SplitResult) -> str:
    if parts.username is None:
        return ""
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"
