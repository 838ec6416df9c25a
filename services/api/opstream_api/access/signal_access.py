"""Signal tokens at the door: which URL a caller gets of a wait, and what a request with one may do (docs/adr/0071)."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from opstream_api.errors import operation_not_found
from opstream_schemas.operation.state import Operation

from .principal import Principal
from .scopes import Scopes
from .tokens.signal_token import SignalGrant, SignalTokens

SIGNAL_VERB: Final = ":signal"
"""What stands between the operation's id and a `/` with the name of the signal."""

_PREFIX: Final = "/status/"
_NO_SCOPES: Final = Scopes.parse([])


class SignalAccess:
    """Gives signal tokens, and knows what they open.

    Args:
        tokens: those of the installation.
        now: returns Unix seconds.
        key_principal: returns the principal of an API key that is in use, by its id; None for any other.
        takes_tokens: the service takes bearer tokens, so a signal token may have none of its API keys.
    """

    def __init__(
        self,
        tokens: SignalTokens,
        now: Callable[[], float],
        key_principal: Callable[[str], Principal | None],
        *,
        takes_tokens: bool,
    ) -> None:
        self._tokens = tokens
        self._now = now
        self._key_principal = key_principal
        self._takes_tokens = takes_tokens

    def give(self, principal: Principal, operation: Operation) -> str:
        """Return the token of the wait that an operation is in; always the same, so that a status has one `ETag`.

        Args:
            principal: it may send the signal itself.
            operation: it waits for a signal that anybody may send who has the URL.
        """
        waiting, name = operation.waiting, operation.receiver.awaited
        if waiting is None or not name:
            raise ValueError(f"operation {operation.id} waits for no signal")
        grant = SignalGrant(
            wait=waiting.sequence,
            expires_at=math.ceil(waiting.retry_at.timestamp()),
            key_id=principal.key_id,
            tenant=operation.tenant,
        )
        return self._tokens.sign(grant, operation.public_id, name)

    def principal(self, token: str, path: str) -> Principal:
        """Return who sends a request with a signal token: a principal without a subject, which may send one signal.

        Raises:
            ApiError: `OperationNotFound`, whatever is wrong with the token.
        """
        operation_id, name = signal_target(path)
        grant = self._tokens.verify(token, operation_id, name, self._now())
        if grant is None or not self._is_allowed(grant):
            raise operation_not_found()
        return Principal(
            tenant=grant.tenant,
            subject="",
            scopes=_NO_SCOPES,
            expires_at=datetime.fromtimestamp(grant.expires_at, tz=UTC),
            key_id=grant.key_id,
            opens_wait=grant.wait,
        )

    def _is_allowed(self, grant: SignalGrant) -> bool:
        if not grant.key_id:
            return self._takes_tokens
        found = self._key_principal(grant.key_id)
        return (
            found is not None and found.tenant == grant.tenant and bool(found.scopes.signals or found.scopes.signaled)
        )


def is_signal_path(path: str) -> bool:
    """Return True if a path is that of a signal, `/status/{operation-id}:signal/{name}`, whether or not it is valid."""
    return path.startswith(_PREFIX) and f"{SIGNAL_VERB}/" in path


def signal_target(path: str) -> tuple[str, str]:
    """Return the operation id and the signal's name of a signal's path. Neither is checked."""
    operation_id, _, name = path.removeprefix(_PREFIX).partition(f"{SIGNAL_VERB}/")
    return operation_id, name
