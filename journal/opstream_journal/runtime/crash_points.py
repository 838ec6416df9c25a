"""Named crash points: moments between two steps that belong together, at which a test ends this process for real.

The broker stores every step of a service before the next one begins, so a process may end between any two of them. A
kill from outside hardly ever hits such a moment; these points always do. Services call `crash_point` at each boundary,
the `opstream` command arms one of them, and `tests/chaos` kills by them.
"""

from __future__ import annotations

import logging
import os
import signal
from enum import StrEnum
from typing import Final

logger = logging.getLogger(__name__)

CRASH_VARIABLE: Final = "OPSTREAM_CRASH_AT"
"""`NAME` or `NAME:COUNT`: the process ends when it passes that point for the count-th time. For tests only."""


class CrashPoint(StrEnum):
    """Every point, named `{part}.{what has just happened}`."""

    API_PAYLOAD_STORED = "api.payload-stored"
    """An input is stored as a payload; the request that names it is not."""
    API_RECORDED = "api.recorded"
    """A request is stored; its client has no response yet."""
    API_KEY_MADE = "api.key-made"
    """The key of a confidential operation is stored; its request is not stored yet."""
    API_ERASURE_RECORDED = "api.erasure-recorded"
    """That an operation is erased is stored; its key is still on the broker's disk."""
    SCHEDULE_SUBMITTED = "schedule.submitted"
    """The operation of a schedule's moment is stored; that the moment is done is not recorded yet."""
    API_SIGNALED = "api.signaled"
    """A signal is stored; its sender has no response yet, and nothing has woken the operation."""
    API_ITEM_DONE = "api.item-done"
    """An operation was retried or canceled by a bulk operation, whose events don't say so yet."""
    RUNNER_STARTED = "runner.started"
    """An attempt is stored; its handler was not called yet."""
    RUNNER_STEP_BEGINS = "runner.step-begins"
    """A step that must run at most once is about to begin; that is not stored yet."""
    RUNNER_STEP_DONE = "runner.step-done"
    """A step's function has returned; its result is not stored yet."""
    RUNNER_STEP_RECORDED = "runner.step-recorded"
    """That a step begins, or its result, is stored; its handler does not know yet."""
    RUNNER_CHILDREN_BEGUN = "runner.children-begun"
    """Children exist; that their parent waits for them is not stored yet."""
    RUNNER_HANDLED = "runner.handled"
    """The handler is done; its outcome is not stored yet."""
    RUNNER_PAYLOAD_STORED = "runner.payload-stored"
    """A result is stored as a payload; the outcome that names it is not."""
    RUNNER_CONCLUDED = "runner.concluded"
    """The outcome is stored; its message is not acknowledged yet."""
    RUNNER_ATTEMPT_FAILED = "runner.attempt-failed"
    """A failed attempt is stored; the wake-up for the next one is not scheduled yet."""
    RUNNER_WAITING = "runner.waiting"
    """That an operation waits is stored; the wake-up at the end of the wait is not scheduled yet."""
    RUNNER_WAKE_ARMED = "runner.wake-armed"
    """The wake-up for the next attempt is scheduled; the message of this one is not acknowledged yet."""
    HOLD_TAKEN = "hold.taken"
    """An operation owns its lock; its attempt is not stored yet."""
    HOLD_LEFT = "hold.left"
    """An operation has ended, and still owns its lock."""
    HOLD_HANDED_OVER = "hold.handed-over"
    """The next operation owns the lock; its wake-up is not sent yet."""
    PROJECTOR_WRITTEN = "projector.written"
    """A snapshot and its after-effects are stored; the events are not acknowledged yet."""
    PROJECTOR_PARENT_WOKEN = "projector.parent-woken"
    """A parent is woken, because a child has ended; the event that caused it is not acknowledged yet."""
    PROJECTOR_CHILD_CANCELED = "projector.child-canceled"
    """A child is canceled, because its parent has ended; others are not yet."""
    PROJECTOR_INDEXED = "projector.indexed"
    """The rows of a batch are in the index; its events are not acknowledged yet."""
    PROJECTOR_DEADLINE_ARMED = "projector.deadline-armed"
    """A deadline is scheduled; the message that caused it is not acknowledged yet."""
    PROJECTOR_WOKEN = "projector.woken"
    """An operation that has its signal, or was canceled, is woken; that event is not acknowledged yet."""
    JOURNAL_PUBLISHES = "journal.publishes"
    """An event is decided, and not sent yet."""
    JOURNAL_STORED = "journal.stored"
    """An event is acknowledged; the caller of `append` does not know yet."""


_armed: Final[dict[CrashPoint, int]] = {}
"""The passes left until this process ends; empty without a test."""


def arm(setting: str) -> None:
    """Arm the point of a setting, as `CRASH_VARIABLE` has it. An empty one disarms.

    Raises:
        ValueError: it names no point, or its count is not a whole number from 1 on.
    """
    _armed.clear()
    if not setting:
        return
    name, _, count = setting.partition(":")
    passes = int(count or "1")
    if passes < 1:
        raise ValueError(f"{setting!r} counts from 1 on")
    _armed[CrashPoint(name)] = passes
    logger.warning("this process will end itself at the crash point %s", setting)


def crash_point(name: CrashPoint) -> None:
    """Pass a point. If it is armed, this may end the process."""
    if _armed:
        _pass(name)


def _pass(name: CrashPoint) -> None:
    if name not in _armed:
        return
    _armed[name] -= 1
    if not _armed[name]:
        logger.warning("crash point %s is reached", name)
        os.kill(os.getpid(), signal.SIGKILL)
