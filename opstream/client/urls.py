"""URLs of the service, of its actions and of operations. Pure."""

from __future__ import annotations

import base64
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

from opstream_schemas.errors import InvalidName
from opstream_schemas.names import Kind, check_operation_id, check_resource_id
from opstream_schemas.schedules.schedule import check_schedule_name
from opstream_schemas.urls import advise_base_url, hide_credentials

from .errors import InvalidRequest

_PORTS: Final = {"http": 80, "https": 443}


class ServiceUrls:
    """The URLs below one service.

    Args:
        url: `https://HOST` or `https://HOST/PATH`; a `USER:PASSWORD@` in it becomes Basic authentication.

    Attributes:
        base: the URL without credentials and without a trailing slash.
        authorization: a value for the header `Authorization`; empty if the URL has no credentials.

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
            raise InvalidRequest(f"{hide_credentials(url)!r} is not a base URL: {advise_base_url(url)}")
        netloc = parts.netloc.rpartition("@")[2]
        self._path = parts.path.rstrip("/")
        self.base = f"{scheme}://{netloc}{self._path}"
        self.authorization = _basic_authorization(parts)

    def action(self, target: str) -> str:
        """The URL to submit to.

        Args:
            target: `resource/id:action` or `resource:action`; the id is not percent-encoded.

        Raises:
            InvalidRequest: the target has another form.
        """
        resource, slash, rest = target.removeprefix("/").partition("/")
        try:
            if not slash:
                return f"{self.base}/{Kind.parse_routable(resource)}"
            name, _, action = rest.rpartition(":")
            kind = Kind.parse_routable(f"{resource}:{action}")
            return f"{self.base}/{kind.resource}/{quote(check_resource_id(name), safe='')}:{kind.action}"
        except InvalidName as error:
            advice = _missing_part(target) or f"write 'book/42:upload-start' or 'book:reindex' ({error})"
            raise InvalidRequest(f"{target!r} is no target: {advice}") from error

    def status(self, operation_id: str, location: str | None = None) -> str:
        """The URL of an operation's status.

        Args:
            operation_id: the operation's id.
            location: the response's `Operation-Location`, if it had one.

        Raises:
            InvalidRequest: the id is not valid.
        """
        try:
            own = f"{self.base}/status/{check_operation_id(operation_id)}"
        except InvalidName as error:
            raise InvalidRequest(str(error)) from error
        # Behind a proxy, a service without --public-url can only guess its own URL. And credentials for this service
        # must not go to another host that a response names.
        return location if location and self._is_below_base(location) else own

    def operations(self, query: str, action: str = "") -> str:
        """The URL of a list, or of what is done with one.

        Args:
            query: percent-encoded, without `?`; empty for none.
            action: `count`, `retry` or `cancel`; empty for the list itself.

        Raises:
            InvalidRequest: the query can't stand in a URL.
        """
        if not query.isascii() or not query.isprintable() or " " in query or "#" in query:
            raise InvalidRequest(f"{query[:80]!r} is no query: percent-encode it, as urllib.parse.urlencode does")
        path = f"status:{action}" if action else "status"
        return f"{self.base}/{path}{'?' if query else ''}{query}"

    def schedule(self, name: str = "", rest: str = "") -> str:
        """The URL of a schedule, or of all.

        Args:
            name: of the schedule; empty for all.
            rest: what follows the name, e.g. `:trigger` or `/history`.

        Raises:
            InvalidRequest: the name is not valid.
        """
        if not name:
            return f"{self.base}/schedules"
        try:
            return f"{self.base}/schedules/{check_schedule_name(name)}{rest}"
        except InvalidName as error:
            raise InvalidRequest(str(error)) from error

    def _is_below_base(self, location: str) -> bool:
        try:
            parts = urlsplit(location)
            is_same = _origin(parts) == self._origin and "@" not in parts.netloc
        except ValueError:
            return False
        is_plain = location.isascii() and location.isprintable()
        is_below = parts.path.startswith(f"{self._path}/") and ".." not in parts.path
        return is_plain and is_same and is_below and not parts.query and not parts.fragment


def _missing_part(target: str) -> str:
    """Which part a target lacks, and how it looks with it. Empty if it lacks none, or what it has is not valid."""
    resource, slash, rest = target.removeprefix("/").removesuffix(":").partition("/")
    name, colon, action = rest.rpartition(":")
    if not _is_kind(resource, action if colon else "x"):
        return ""
    if slash and colon:
        missing = (
            f"it names no resource: write {f'{resource}/ID:{action}'!r}, or {f'{resource}:{action}'!r} without one"
        )
        return "" if name else missing
    if not rest:
        return f"it names no action: write {f'{resource}:ACTION'!r} or {f'{resource}/ID:ACTION'!r}"
    name, _, action = rest.partition("/")
    meant = f"{resource}/{name}:{action}" if name and _is_kind(resource, action) else f"{resource}/{rest}:ACTION"
    return f"it names no action: write {meant!r}"


def _is_kind(resource: str, action: str) -> bool:
    try:
        Kind.parse_routable(f"{resource}:{action}")
    except InvalidName:
        return False
    return True


def _origin(parts: SplitResult) -> tuple[str, str, int | None]:
    scheme = parts.scheme.lower()
    return scheme, parts.hostname or "", parts.port or _PORTS.get(scheme)


def _basic_authorization(parts: SplitResult) -> str:
    if parts.username is None:
        return ""
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"
