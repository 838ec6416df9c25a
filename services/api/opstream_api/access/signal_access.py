"""Signal tokens at the door: which URL a caller gets of a wait, and what a request with one may do (docs/adr/0071)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from opstream_api.errors import operation_not_found
from opstream_schemas.operation.state import Operation

from .principal import Principal
from .token_keys import TokenKeys, url_principal
from .tokens.signal_token import SignalGrant, SignalTokens

SIGNAL_VERB: Final = ":signal"
"""What stands between the operation's id and a `/` with the name of the signal."""

_PREFIX: Final = "/status/"


class SignalAccess:
    """Gives signal tokens, and knows what they open.

    Args:
        tokens: those of the installation.
        now: returns Unix seconds.
        keys: the API keys that they end with.
    """

    def __init__(
        self,
        tokens: SignalTokens,
        now: Callable[[], float],
        keys: TokenKeys,
    ) -> None:
        self._tokens = tokens
        self._now = now
        self._keys = keys

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
        if grant is None or not self._keys.allow(grant, lambda scopes: bool(scopes.signals or scopes.signaled)):
            raise operation_not_found()
        return url_principal(grant, opens_wait=grant.wait)


def is_signal_path(path: str) -> bool:
    """Return True if a path is that of a signal, `/status/{operation-id}:signal/{name}`, whether or not it is valid."""
    return path.startswith(_PREFIX) and f"{SIGNAL_VERB}/" in path


def signal_target(path: str) -> tuple[str, str]:
    """Return the operation id and the signal's name of a signal's path. Neither is checked."""
    operation_id, _, name = path.removeprefix(_PREFIX).partition(f"{SIGNAL_VERB}/")
    return operation_id, name
