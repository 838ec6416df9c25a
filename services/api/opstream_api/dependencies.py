"""What the HTTP surface is made of. Put together by `main.py`, used by the routes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from .http.callback_header import CallbackPolicy
from .http.caller_identity import CallerResolver
from .http.docs_page import DocsPage
from .openapi.document_cache import DocumentCache
from .operations.cancel import Canceler
from .operations.history import History
from .operations.journal_capacity import JournalCapacity
from .operations.status import StatusReader
from .operations.submit import Submitter
from .operations.watch import WatchRegistry


class Dependencies(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of one service."""

    submitter: Submitter
    status: StatusReader
    watches: WatchRegistry
    canceler: Canceler
    history: History
    capacity: JournalCapacity
    callers: CallerResolver
    openapi: DocumentCache
    asyncapi: DocumentCache
    docs_page: DocsPage
    public_url: str
    """Base of status URLs; empty for each request's own host."""
    body_limit: int
    """Bytes."""
    callback_policy: CallbackPolicy
    """Which `Operation-Callback` is taken."""
    new_operation_id: Callable[[], str]
    """For requests that bring none."""
    new_request_id: Callable[[], str]
    """For each request."""
