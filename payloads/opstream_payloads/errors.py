"""What can be wrong with a payload or its store; each text says what to do next."""

from __future__ import annotations


class PayloadError(Exception):
    """Base of the errors of this package."""


class InvalidStoreUrl(PayloadError):
    """A URL names no payload store, or what it names can't be used as one."""


class StoreUnavailable(PayloadError):
    """The store does not answer, or has no room. It may work later."""


class NoObjectStore(StoreUnavailable):
    """The broker has no object store for payloads; `opstream provision --update` makes it."""


class PayloadMissing(PayloadError):
    """The store has no such payload: its operation's retention is over, or this is another store."""


class PayloadDamaged(PayloadError):
    """The store has other bytes than were stored: the size or the SHA-256 is not that of the event."""


class PayloadTooLarge(PayloadError):
    """The payload has more bytes than its reader or writer takes."""
