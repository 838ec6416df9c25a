"""The payload store: bytes that are too large for an event, under names that say which operation they belong to.

Begin with `payloads` (store, fetch, stream: what services call), then `store` (what a store can do). `location` reads
the URL of a store, `drivers` opens it; `jetstream_store`, `folder_store` and `s3_store` are the three. The projector
decides how long a payload is kept (docs/adr/0075). Not allowed in: HTTP, events, decisions about operations.
"""

from .errors import (
    InvalidStoreUrl,
    PayloadDamaged,
    PayloadError,
    PayloadMissing,
    PayloadTooLarge,
    StoreUnavailable,
)
from .payloads import Payloads
from .store import PayloadStore, StoredPayload

__all__ = [
    "InvalidStoreUrl",
    "PayloadDamaged",
    "PayloadError",
    "PayloadMissing",
    "PayloadStore",
    "PayloadTooLarge",
    "Payloads",
    "StoreUnavailable",
    "StoredPayload",
]
