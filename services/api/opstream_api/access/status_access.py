"""Status tokens at the door: who gets one with a submit, and what a request with one may do (ADR 0047).

The same query parameter has the token of a signal's URL, which `signal_access` knows, and that of an upload
(`upload_access`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from litestar.types import HTTPScope, Message, Send

from opstream_api.errors import operation_not_found

from .principal import Principal
from .scopes import READ_ALL, Scopes
from .signal_access import SignalAccess, is_signal_path
from .token_keys import TokenKeys, url_principal
from .tokens.status_token import CLOCK_LEEWAY, STATUS_TOKEN_PARAMETER, StatusGrant, StatusTokens
from .uploads.upload_access import UploadAccess, is_upload_path

MAX_UNREVOCABLE_SECONDS: Final = 3600
"""Whole seconds that a status token lasts at most that a bearer token asked for, since nothing revokes it."""

_STATUS_PREFIX: Final = "/status/"
_PREFIX: Final = f"{STATUS_TOKEN_PARAMETER}=".encode()
_SCOPES: Final = Scopes.parse([READ_ALL])
"""Of one operation only, which the token names, also if another caller has submitted it."""
_PRIVATE: Final = b"private, no-cache"


class GivenToken(NamedTuple):
    """A status token, and how long it lasts."""

    text: str
    seconds: int


class StatusAccess:
    """Gives status tokens, and knows what they open.

    Args:
        tokens: those of the installation.
        now: returns Unix seconds.
        keys: the API keys that they end with.
        signals: knows what the tokens of signals open.
        uploads: knows what the tokens of uploads open.
    """

    def __init__(
        self,
        tokens: StatusTokens,
        now: Callable[[], float],
        keys: TokenKeys,
        signals: SignalAccess,
        uploads: UploadAccess,
    ) -> None:
        self.signals = signals
        self.uploads = uploads
        self._tokens = tokens
        self._now = now
        self._keys = keys

    def give(self, principal: Principal, operation_id: str, seconds: int) -> GivenToken | None:
        """Return a status token for an operation of a principal; None for one that may not read it itself.

        Args:
            principal: it has submitted the operation.
            operation_id: the client's own id.
            seconds: for how long it asks.
        """
        if not principal.scopes.reads:
            return None
        now = self._now()
        if not principal.key_id:
            seconds = min(seconds, MAX_UNREVOCABLE_SECONDS)
        elif principal.expires_at is not None:
            seconds = min(seconds, int(principal.expires_at.timestamp() - now))
        grant = StatusGrant(expires_at=int(now) + seconds, key_id=principal.key_id, tenant=principal.tenant)
        return GivenToken(self._tokens.sign(grant, operation_id), seconds)

    def principal(self, token: str, path: str) -> Principal:
        """Return who sends a request with a status token: a principal without a subject, which may read one operation.

        On the path of a signal: with a signal's token; on that of an upload: with an upload's.

        Raises:
            ApiError: `OperationNotFound`, of an upload `PayloadNotFound`, whatever is wrong with the token.
        """
        if is_upload_path(path):
            return self.uploads.principal(token, path)
        if is_signal_path(path):
            return self.signals.principal(token, path)
        now = self._now()
        grant = self._tokens.verify(token, _operation_id(path), now)
        if grant is None or not self._is_allowed(grant, now):
            raise operation_not_found()
        return url_principal(grant, scopes=_SCOPES)

    def _is_allowed(self, grant: StatusGrant, now: float) -> bool:
        is_bounded = grant.key_id or grant.expires_at <= now + MAX_UNREVOCABLE_SECONDS + CLOCK_LEEWAY
        return bool(is_bounded) and self._keys.allow(grant, lambda scopes: scopes.reads)


def take_status_token(scope: HTTPScope) -> str | None:
    """Remove the status token from a request, so that nothing behind the door sees or logs it; return it.

    None without one. Two are none that is valid.
    """
    query = scope["query_string"]
    path = scope["path"]
    if _PREFIX not in query or not (path.startswith(_STATUS_PREFIX) or is_upload_path(path)):
        return None
    parts = query.split(b"&")
    found = [part.removeprefix(_PREFIX) for part in parts if part.startswith(_PREFIX)]
    if not found:
        return None
    scope["query_string"] = b"&".join(part for part in parts if not part.startswith(_PREFIX))
    return found[0].decode("latin-1") if len(found) == 1 else ""


def private_answers(send: Send) -> Send:
    """Return a `send` (ASGI) whose answers no shared cache keeps, and whose URL no browser gives to the next site."""

    async def send_privately(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [(name, _PRIVATE if value == b"no-cache" else value) for name, value in message["headers"]]
            if all(name.lower() != b"cache-control" for name, _ in headers):
                headers.append((b"cache-control", _PRIVATE))
            message["headers"] = [*headers, (b"referrer-policy", b"no-referrer")]
        await send(message)

    return send_privately


def _operation_id(path: str) -> str:
    """Return the operation id of a path below `/status/`: of a status or a cancel. No id has a ':' or a '/'.

    Empty, of which there is no token, for the path of a history: it has the callback, the input and the caller.
    """
    target = path.removeprefix(_STATUS_PREFIX)
    return "" if "/" in target else target.partition(":")[0]
