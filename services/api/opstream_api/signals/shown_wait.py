"""What a status shows of the signal that an operation waits for: the URL to send it to, for callers that may. Pure."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from opstream_api.access.access_control import AccessControl
from opstream_api.access.operation_access import may_signal, shown_blocker
from opstream_api.access.principal import Principal
from opstream_api.access.signal_access import SIGNAL_VERB
from opstream_api.access.tokens.status_token import STATUS_TOKEN_PARAMETER
from opstream_schemas.operation.state import Operation
from opstream_schemas.status_monitor import AwaitedSignal, StatusMonitor


def shown_to(
    access: AccessControl | None,
    principal: Principal | None,
    monitor: StatusMonitor,
    operation: Operation,
    base: Callable[[], str],
) -> StatusMonitor:
    """Return a status monitor as a caller may see it.

    Args:
        access: who may do what; None for a service that asks for no credentials.
        principal: who reads; None without authentication.
        monitor: of the operation.
        operation: its state.
        base: returns the base of URLs.
    """
    blocked_by = monitor.blocked_by
    if blocked_by is None:
        return monitor
    if access is not None:
        blocked_by = shown_blocker(principal, blocked_by)
    if blocked_by is not None and blocked_by.signal is not None:
        url = _url(blocked_by.signal, operation, access, principal, base())
        blocked_by = msgspec.structs.replace(blocked_by, signal=msgspec.structs.replace(blocked_by.signal, url=url))
    return msgspec.structs.replace(monitor, blocked_by=blocked_by)


def _url(
    awaited: AwaitedSignal, operation: Operation, access: AccessControl | None, principal: Principal | None, base: str
) -> str:
    url = f"{base}/status/{operation.public_id}{SIGNAL_VERB}/{awaited.name}"
    wait = operation.receiver.wait
    if access is None:
        return url
    if principal is None or wait is None or not principal.subject or not may_signal(principal, operation):
        return ""
    if wait.needs_proof or access.status is None or not operation.own_id:
        return url  # which proves nobody, so its sender needs credentials of its own
    return f"{url}?{STATUS_TOKEN_PARAMETER}={access.status.signals.give(principal, operation)}"
