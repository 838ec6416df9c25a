"""Which code keeps the event loop of the async handlers from running: its operation and its line."""

from __future__ import annotations

import asyncio
import contextvars
import sysconfig
from collections.abc import Collection, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

OPERATION: Final[contextvars.ContextVar[str]] = contextvars.ContextVar("opstream_operation")
"""Names the operation whose handler runs; the tasks that the handler starts inherit it."""

_LIBRARIES: Final = tuple(
    str(Path(path).resolve())
    for path in {*map(sysconfig.get_path, ("stdlib", "purelib", "platlib")), str(Path(__file__).parent.parent)}
)


def blocking_operation(loop: asyncio.AbstractEventLoop, names: dict[Any, str]) -> str:
    """Return the name of the operation whose task runs in a loop of another thread; empty if that can't be known.

    Args:
        loop: the loop.
        names: the names of the handlers' own tasks. Before Python 3.12 the tasks that they start can't be assigned.
    """
    task = asyncio.current_task(loop)
    if task is None:
        return ""
    get_context = getattr(task, "get_context", None)
    return names.get(task) or (get_context().get(OPERATION, "") if get_context else "")


def blocking_line(frame: FrameType | None, packages: Collection[str]) -> str:
    """Return `file:line in function` of the innermost frame in an author's code, or else of the innermost of all.

    Args:
        frame: the innermost frame of the thread.
        packages: the top-level packages of the actions.
    """
    frames = list(_callers(frame))
    own = (one for one in frames if str(one.f_globals.get("__name__", "")).partition(".")[0] in packages)
    foreign = (one for one in frames if not one.f_code.co_filename.startswith(_LIBRARIES))
    found = next(own, None) or next(foreign, None) or (frames[0] if frames else None)
    return f"{found.f_code.co_filename}:{found.f_lineno} in {found.f_code.co_name}" if found else "an unknown line"


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
