"""When a request loses its access while it waits: its key is revoked, or its key or token expires."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from .principal import Principal


class AccessEnds:
    """The requests of one process that wait or stream, by the keys that allowed them.

    Args:
        now: returns Unix seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._is_current: Callable[[Principal], bool] | None = None

    def check_with(self, is_current: Callable[[Principal], bool]) -> None:
        """Ask this function whether a principal with a key is still valid when its wait begins."""
        self._is_current = is_current

    def has_ended(self, principal: Principal) -> bool:
        """Return True if the access of a principal that the door let pass has ended since."""
        if principal.expires_at is not None and self._now() >= principal.expires_at.timestamp():
            return True
        return bool(principal.key_id) and self._is_current is not None and not self._is_current(principal)

    @contextlib.contextmanager
    def watch(self, principal: Principal) -> Iterator[asyncio.Future[None]]:
        """Yield a future that is done as soon as the principal's access has ended."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        timer = None
        if principal.expires_at is not None:
            left = principal.expires_at.timestamp() - self._now()
            timer = loop.call_later(max(0.0, left), _finish, ended)
        if principal.key_id:
            self._waiting.setdefault(principal.key_id, set()).add(ended)
            # It may have been revoked between the door and here.
            if self._is_current is not None and not self._is_current(principal):
                _finish(ended)
        try:
            yield ended
        finally:
            if timer is not None:
                timer.cancel()
            if principal.key_id:
                self._forget(principal.key_id, ended)

    def end(self, key_id: str) -> None:
        """End all requests that wait or stream by a key."""
        for ended in self._waiting.get(key_id, ()):
            _finish(ended)

    def _forget(self, key_id: str, ended: asyncio.Future[None]) -> None:
        waiting = self._waiting[key_id]
        waiting.discard(ended)
        if not waiting:
            del self._waiting[key_id]


def _finish(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
