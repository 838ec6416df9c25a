"""A context for unit tests of handlers: no broker, no runner."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final, NamedTuple

import msgspec

from opstream_runner.steps.step_table import StepEvent, keep_nothing
from opstream_runner.waits.wait_table import WaitTable
from opstream_schemas.events import WaitBegun
from opstream_schemas.signals.wait_history import ClosedWait

from .context import COMPLETED, ActionContext
from .files.attached_file import FileRequest, keep_no_file

_NO_SIGNALS: Final[Mapping[str, Sequence[Any]]] = {}


class ProgressReport(NamedTuple):
    """One call of `ActionContext.progress`."""

    percent: float
    message: str


class RecordingContext(ActionContext):
    """A context for tests: it keeps what the handler reports, and can ask it to stop.

    Args:
        operation_id: the same in all attempts.
        resource_id: the resource's own id.
        attempt: from 1.
        traceparent: W3C Trace Context.
        signals: what was sent, by name; an empty list for a wait that has timed out. `wait_for` any other name raises
            `AttemptSuspended`.
    """

    def __init__(
        self,
        *,
        operation_id: str = "op-1",
        resource_id: str = "",
        attempt: int = 1,
        traceparent: str = "",
        signals: Mapping[str, Sequence[Any]] = _NO_SIGNALS,
    ) -> None:
        self.reports: list[ProgressReport] = []
        """All reports, in order. opstream records fewer: one for each percent, or every 10 seconds."""
        self.steps: list[StepEvent] = []
        """What the handler's steps have recorded, in order: starts, results and failures."""
        self.waits: list[WaitBegun] = []
        """The handler's sleeps, in order. They take no time."""
        self.files: list[FileRequest] = []
        """The files that the handler has added, in order."""
        self._stop = threading.Event()
        closed = {
            name: ClosedWait(payloads=tuple(msgspec.Raw(msgspec.json.encode(one)) for one in sent))
            for name, sent in signals.items()
        }
        super().__init__(
            operation_id=operation_id,
            resource_id=resource_id,
            attempt=attempt,
            traceparent=traceparent,
            report=self._keep,
            cancel_requested=self._stop.is_set,
            make_waits=lambda: WaitTable(closed, is_proven=True),
            attach_file=self._keep_file,
        )

    def cancel(self) -> None:
        """Make `cancel_requested` true, as after a client's cancel. An async handler's task is to be cancelled, too."""
        self._stop.set()

    def _keep(self, percent: float, message: str) -> Awaitable[None]:
        self.reports.append(ProgressReport(percent, message))
        return COMPLETED

    def _keep_wait(self, wait: WaitBegun) -> None:
        self.waits.append(wait)

    def _keep_file(self, request: FileRequest) -> Future[None]:
        self.files.append(request)
        return keep_no_file(request)

    def _keep_step(self, event: StepEvent) -> Future[None]:
        self.steps.append(event)
        return keep_nothing(event)
