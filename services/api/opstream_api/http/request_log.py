"""The request log: one line for each request when it has ended, with a template for its path (ADR 0049).

A line has no text that a client chose but the operation id, the name of the caller, and an action that the catalog has.
So it holds no query, no token, no resource id, and no path that nothing serves.

A line costs some microseconds, since lines are collected and written in one go, `FLUSH_DELAY` later at most.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from opstream_schemas.logs.json_formatter import BatchRecord, encode_text
from opstream_schemas.names import Kind, check_operation_id

logger = logging.getLogger("opstream_api.requests")

FLUSH_DELAY: Final = 0.1
"""Seconds that a line may wait for others."""
MAX_COLLECTED: Final = 500
"""Lines that are written at once, whatever the time."""
REQUEST_KEY: Final = "opstream_request"
"""Key of the request's `LoggedRequest` in the scope's `state`."""
CLOSING_KEY: Final = "opstream.closing"
"""Key in the ASGI scope of a function that returns True once the connection ends (`server.HttpProtocol`)."""

STATUS_ROUTE: Final = "/status/{id}"
_OTHER: Final = "/{path}"
_SUBMIT: Final = "/{resource}/{id}:{action}"
PROBES: Final = frozenset({"/healthz", "/readyz"})
"""Paths that are asked for every few seconds, so that their lines and spans would hide all others."""
_FIXED: Final = frozenset(
    {
        *PROBES,
        "/status",
        "/status:count",
        "/status:cancel",
        "/status:retry",
        "/schedules",
        "/actions",
        "/webhooks/deliveries",
        "/subscribers/parked",
        "/openapi.json",
        "/asyncapi.json",
        "/docs",
        "/.well-known/oauth-protected-resource",
    }
)
_ACT: Final = re.compile(r"/actions/[a-z0-9-]{1,40}:[a-z0-9-]{1,40}:(pause|resume|withdraw)")
_SCHEDULE_ACTIONS: Final = frozenset({"preview", "trigger", "backfill", "pause", "resume"})
_ACTIONS: Final = frozenset({"cancel", "retry"})
_PLAIN: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._@:/+")


class LoggedRequest:
    """What is known of one request. The route writes it, the log reads it.

    Attributes:
        route: the template of the path; empty until it is known.
        operation_id: the operation that the request is about, if there is one.
        caller: who sent it, as authentication or a trusted proxy says; empty if not known.
        status: of HTTP; 0 if nothing was sent.
        is_aborted: True if the client left, or the connection was dropped, before the response was complete.
        seconds: from the request to the end of the response.
        created: when it ended, in Unix seconds.
        action: the action that the request is about, if the catalog has it; only traces show it.
        denial: why the request was denied, a word of `DenialReason`; empty for one that was not.
        span_ids: of trace and span, if the request has one.
    """

    __slots__ = (
        "action",
        "caller",
        "created",
        "denial",
        "is_aborted",
        "method",
        "operation_id",
        "request_id",
        "route",
        "seconds",
        "span_ids",
        "status",
    )

    def __init__(self, method: str, request_id: str) -> None:
        self.method = method
        self.request_id = request_id
        self.route = ""
        self.operation_id = ""
        self.caller = ""
        self.status = 0
        self.is_aborted = True
        self.seconds = 0.0
        self.created = 0.0
        self.action = ""
        self.denial = ""
        self.span_ids = ("", "")

    def text(self) -> str:
        """Return the line for people."""
        end = " aborted" if self.is_aborted else ""
        caller = f" caller={_quoted(self.caller)}" if self.caller else ""
        operation = f" operation={self.operation_id}" if is_operation_id(self.operation_id) else ""
        denied = f" denied={self.denial}" if self.denial else ""
        return (
            f"{self.method} {self.route} {self.status or '-'}{end} {self.seconds * 1000:.1f} ms"
            f"{denied}{operation}{caller} request={self.request_id}"
        )

    def members_json(self) -> str:
        """Return the members of the JSON line."""
        operation = f',"operationId":"{self.operation_id}"' if is_operation_id(self.operation_id) else ""
        caller = f',"caller":{encode_text(self.caller)}' if self.caller else ""
        denied = f',"denied":"{self.denial}"' if self.denial else ""
        end = ',"isAborted":true' if self.is_aborted else ""
        trace_id, span_id = self.span_ids
        span = f',"trace_id":"{trace_id}","span_id":"{span_id}"' if trace_id else ""
        return (
            f'"method":{encode_text(self.method)},"path":"{self.route}","status":{self.status},'
            f'"ms":{self.seconds * 1000:.1f},"requestId":"{self.request_id}"{denied}{operation}{caller}{end}{span}'
        )


class RequestLog:
    """Writes the lines of one API.

    Args:
        clock: monotonic seconds.
        now: Unix seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter, now: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._now = now
        self._collected: list[LoggedRequest] = []
        self._timer: asyncio.TimerHandle | None = None

    @staticmethod
    def is_enabled() -> bool:
        """Return True if the level of the log lets lines pass."""
        return logger.isEnabledFor(logging.INFO)

    def add(self, request: LoggedRequest, path: str, began: float) -> None:
        """Write a line about a request that has ended, soon. Probes are at the level debug."""
        is_probe = path in PROBES
        if not logger.isEnabledFor(logging.DEBUG if is_probe else logging.INFO):
            return
        request.seconds = self.clock() - began
        request.created = self._now()
        if not request.route:
            request.route = path_template(request.method, path)
        if is_probe:
            logger.handle(BatchRecord(logger.name, logging.DEBUG, [request]))
            return
        self._collected.append(request)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_DELAY, self.flush)
        elif len(self._collected) >= MAX_COLLECTED:
            self.flush()

    def flush(self) -> None:
        """Write the lines that were collected."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        entries, self._collected = self._collected, []
        if entries:
            logger.handle(BatchRecord(logger.name, logging.INFO, list(entries)))


def logged_request(scope: Mapping[str, Any]) -> LoggedRequest:
    """Return what the log will say of the request of an ASGI scope; without a log it says nothing."""
    found = scope.get("state", {}).get(REQUEST_KEY)
    return found if isinstance(found, LoggedRequest) else LoggedRequest("", "")


@lru_cache(1024)
def submit_template(kind: Kind, has_resource_id: bool) -> str:  # noqa: FBT001 - lru_cache is faster with positions
    """Return the path of an action that the catalog has, with `{id}` for the resource's."""
    return f"/{kind.resource}/{{id}}:{kind.action}" if has_resource_id else f"/{kind.resource}:{kind.action}"


def path_template(method: str, path: str) -> str:
    """Return the template of a path whose route did not say it."""
    if path in _FIXED:
        return path
    if path == "/console" or path.startswith("/console/"):
        return "/console/{file}" if path.count("/") > 1 else path
    if path.startswith("/docs/"):
        return "/docs/{file}"
    if path.startswith("/schedules/"):
        _, colon, action = path.rpartition(":")
        return f"/schedules/{{name}}:{action}" if colon and action in _SCHEDULE_ACTIONS else "/schedules/{name}"
    if found := _ACT.fullmatch(path):
        return f"/actions/{{kind}}:{found[1]}"
    if path.startswith("/webhooks/deliveries/"):
        return "/webhooks/deliveries/{id}/{endpoint}:redeliver"
    if path.startswith("/subscribers/parked/"):
        return "/subscribers/parked/{durable}/{sequence}:retry"
    if path.startswith("/status/"):
        rest = path.removeprefix("/status/")
        if ":signal/" in rest:
            return "/status/{id}:signal/{name}"
        if rest.endswith("/events"):
            return "/status/{id}/events"
        action = rest.rpartition(":")[2]
        return f"/status/{{id}}:{action}" if action in _ACTIONS and ":" in rest else STATUS_ROUTE
    return _SUBMIT if method == "POST" else _OTHER


@lru_cache(1024)
def _quoted(caller: str) -> str:
    """Return the name of a caller, with quotes around all but a plain word, so that it can't look like a field."""
    return caller if _PLAIN.issuperset(caller) else encode_text(caller)


def is_operation_id(text: str) -> bool:
    """Return True for the id of an operation, by its grammar."""
    try:
        return bool(text) and bool(check_operation_id(text))
    except ValueError:
        return False
