"""The dependencies of the routes, which the composition root builds."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from opstream_journal.runtime.conditions import Conditions
from opstream_schemas.traces.tracer import NO_TRACING, Tracer

from .access.access_control import AccessControl
from .access.denials.access_recorder import AccessRecorder
from .actions.desk import ActionDesk
from .bulk.desk import BulkDesk
from .erasure.erasure_desk import ErasureDesk
from .http.callback_header import CallbackPolicy
from .http.caller_identity import CallerResolver
from .http.document_cache import DocumentCache
from .http.request_log import RequestLog
from .http.request_origin import HostPolicy
from .lists.operation_counts import OperationCounts
from .lists.operation_list import OperationList
from .operations.brief_waits import BriefWaits
from .operations.cancel import Canceler
from .operations.history import HistoryReader
from .operations.journal_capacity import JournalCapacity
from .operations.retry import Retrier
from .operations.status import StatusReader
from .operations.submit import Submitter
from .operations.watch import WatchRegistry
from .pages.console_page import ConsolePage
from .pages.docs_page import DocsPage
from .payloads.desk import PayloadDesk
from .payloads.upload_desk import UploadDesk
from .request_meter import RequestMeter
from .schedules.desk import ScheduleDesk
from .signals.signal_desk import SignalDesk
from .undelivered.service import Undelivered


class Dependencies(msgspec.Struct, frozen=True, kw_only=True):
    """Dependencies of the routes of one service."""

    submitter: Submitter
    status: StatusReader
    watches: WatchRegistry
    brief_waits: BriefWaits
    canceler: Canceler
    retrier: Retrier
    signals: SignalDesk
    history: HistoryReader
    payloads: PayloadDesk
    """Files of operations, and documents that are too large for an event."""
    uploads: UploadDesk
    """Files that clients upload before they submit."""
    erasure: ErasureDesk
    """Erases confidential operations."""
    bulk: BulkDesk | None = None
    """Takes bulk requests; None for a service without an index."""
    schedules: ScheduleDesk | None = None
    """What callers do with schedules; None for a service without them."""
    undelivered: Undelivered
    """What receivers of webhooks and subscribers did not take."""
    actions: ActionDesk | None = None
    """What callers see of actions, and operators do to them."""
    lists: OperationList | None = None
    """Answers lists; None for a service without an index."""
    counts: OperationCounts | None = None
    """Answers counts; likewise."""
    capacity: JournalCapacity
    conditions: Conditions
    """What `/readyz` shows besides."""
    meter: RequestMeter = msgspec.field(default_factory=RequestMeter)
    """Counts the requests."""
    access: AccessControl | None = None
    """Who may do what; None for a service that asks for no credentials."""
    access_recorder: AccessRecorder | None = None
    """Gets each denial, and each act of an administrator; None for no record of them."""
    callers: CallerResolver
    openapi: DocumentCache
    asyncapi: DocumentCache
    docs_page: DocsPage
    console_page: ConsolePage
    public_url: str
    """Base of status URLs; empty to use each request's own `Host`."""
    hosts: HostPolicy
    """The names under which the service may be called."""
    allowed_origins: tuple[str, ...]
    """Web pages of other sites that may submit and cancel."""
    cors_origins: tuple[str, ...]
    """Those that may also read answers (`http.cors`); empty for none."""
    body_limit: int
    """Bytes of a request's body."""
    callback_policy: CallbackPolicy
    """Which callback URLs a submit may name."""
    new_operation_id: Callable[[], str]
    """Generates an id for a submit without one."""
    new_request_id: Callable[[], str]
    """Generates an id for each HTTP request."""
    request_log: RequestLog | None = None
    tracing: Tracer = NO_TRACING
    """Gets each request when it has ended; None for no such log."""
