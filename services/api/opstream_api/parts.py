"""What the HTTP surface is made of. Put together by `main.py`, used by the routes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from .callback import CallbackPolicy
from .cancel import Canceler
from .capacity import Capacity
from .docs import DocsPage
from .documents import Document
from .history import History
from .requester import Requesters
from .status import StatusReader
from .submit import Submitter
from .watchers import Watchers


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of one service."""

    submitter: Submitter
    status: StatusReader
    watchers: Watchers
    canceler: Canceler
    history: History
    capacity: Capacity
    requesters: Requesters
    openapi: Document
    asyncapi: Document
    page: DocsPage
    public_url: str
    """Base of status URLs; empty for each request's own host."""
    body_limit: int
    """Bytes."""
    callbacks: CallbackPolicy
    """Which `Operation-Callback` is taken."""
    new_operation_id: Callable[[], str]
    """For requests that bring none."""
    new_request_id: Callable[[], str]
    """For each request."""
