"""Imports the modules of actions, and turns whatever goes wrong in them into one error for their author."""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, Final

from opstream_runner.containment.log_guard import LogGuard
from opstream_runner.errors import InvalidAction

from .action import Action, action, collect_actions

logger = logging.getLogger(__name__)

_UNKNOWN_OPTION: Final = re.compile(r"action\(\) got an unexpected keyword argument '(\w+)'")
_OPTIONS: Final = tuple(
    name for name, one in inspect.signature(action).parameters.items() if one.kind is inspect.Parameter.KEYWORD_ONLY
)
_OURS: Final = ("opstream", "opstream_runner", "opstream_schemas")
_NOTICE_DELAY: Final = 2.0
"""Seconds of an import that a person takes for work."""
_INSTALLED: Final = ("site-packages", "dist-packages")


def load_actions(
    modules: Iterable[str], *, importing: Callable[[str], AbstractContextManager[object]] = nullcontext
) -> list[Action[Any, Any]]:
    """Import modules and return their actions.

    Args:
        modules: their import names.
        importing: called with each name; the context that it returns is entered during that import.

    Raises:
        InvalidAction: a module can't be imported or defines no valid action. The message names the line of the author's
            code, and has no traceback; that is logged at DEBUG.
    """
    imported = []
    for name in modules:
        guard, interrupt = LogGuard(), _InterruptWatch()
        try:
            with importing(name), interrupt:
                imported.append(importlib.import_module(name))
                _pass_caught_signal()
        except ModuleNotFoundError as error:
            if error.name is not None and f"{name}.".startswith(f"{error.name}."):
                raise InvalidAction(f"there is no module {name!r}: check --actions and PYTHONPATH") from error
            raise _import_error(name, error) from error
        except KeyboardInterrupt as error:
            if interrupt.may_be_pressed:
                raise
            raise _import_error(name, error) from error
        except BaseException as error:
            if getattr(error, "is_signal", False):  # the process was asked to stop, and the module is not to blame
                raise
            raise _import_error(name, error) from error
        finally:
            guard.restore()
    return collect_actions(imported)


def _pass_caught_signal() -> None:
    """End the process if SIGTERM has told it to, and the module has caught that (`except:` around its own imports)."""
    handler = signal.getsignal(signal.SIGTERM)
    if callable(handler) and getattr(handler, "was_asked", False) is True:
        handler(signal.SIGTERM, None)


@contextmanager
def import_notice(module: str) -> Iterator[None]:
    """While this context is entered, log a line once the import of a module takes long."""
    timer = threading.Timer(
        _NOTICE_DELAY, logger.info, ("still importing %s: what does it do or wait for at its import?", module)
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _InterruptWatch:
    """Tells Ctrl-C from a `KeyboardInterrupt` that an author's code raises.

    Attributes:
        may_be_pressed: True once Ctrl-C was pressed, and where that can't be known.
    """

    def __init__(self) -> None:
        self.may_be_pressed = True

    def __enter__(self) -> None:
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self.may_be_pressed = False
            signal.signal(signal.SIGINT, self._press)

    def __exit__(self, *_: object) -> None:
        if signal.getsignal(signal.SIGINT) == self._press:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _press(self, number: int, frame: FrameType | None) -> None:
        self.may_be_pressed = True
        signal.default_int_handler(number, frame)


def _import_error(module: str, error: BaseException) -> InvalidAction:
    logger.debug("the module %s can't be imported", module, exc_info=error)
    where = _place(error)
    if isinstance(error, InvalidAction):
        return InvalidAction(f"{where}: {error}")
    if isinstance(error, SystemExit):
        return InvalidAction(
            f"{where}: the module {module!r} ends the process while it is imported: "
            "move that below 'if __name__ == \"__main__\":'"
        )
    return InvalidAction(f"{where}: the module {module!r} can't be imported: {_cause(error)}{_hint(error)}")


def _cause(error: BaseException) -> str:
    """Return type and first line of an error, with … for further lines."""
    lines = [line for line in "".join(traceback.format_exception_only(error)).splitlines() if line.strip()]
    if isinstance(error, SyntaxError):
        while lines[0].startswith(" "):  # the place, and the code
            del lines[0]
    head, *rest = lines
    if head.endswith(": ") and rest:  # the message begins with an empty line
        head += rest.pop(0).strip()
    return f"{head} …" if rest else head


def _hint(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return ": install it for the Python that runs opstream, or correct the import"
    unknown = _UNKNOWN_OPTION.search(str(error)) if isinstance(error, TypeError) else None
    if unknown is not None:
        close = difflib.get_close_matches(unknown[1], _OPTIONS, n=1)
        return f": did you mean {close[0]!r}?" if close else f": the options are {', '.join(_OPTIONS)}"
    return ""


def _place(error: BaseException) -> str:
    """Return file and line of the author's code, as near to the error as there is some."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_relative(error.filename)}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_authors(frame.filename)]
    if not own:
        return "opstream"  # the import machinery itself failed
    return f"{_relative(own[-1].filename)}:{own[-1].lineno}"


def _is_authors(filename: str) -> bool:
    if filename.startswith("<") or any(part in filename for part in _INSTALLED):
        return False
    ours = [inspect.getfile(sys.modules[name]) for name in _OURS if name in sys.modules]
    return not any(Path(one).parent in Path(filename).parents for one in (*ours, os.__file__))


def _relative(filename: str) -> str:
    relative = os.path.relpath(filename)
    return filename if relative.startswith("..") else relative
