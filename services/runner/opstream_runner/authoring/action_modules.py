"""Imports the modules of actions, and turns whatever goes wrong in them into one error for their author."""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
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
_INSTALLED: Final = ("site-packages", "dist-packages")


def load_actions(modules: Iterable[str]) -> list[Action[Any, Any]]:
    """Import modules and return their actions.

    Raises:
        InvalidAction: a module can't be imported or defines no valid action. The message names the line of the author's
            code, and has no traceback; that is logged at DEBUG.
    """
    imported = []
    for name in modules:
        guard = LogGuard()
        try:
            imported.append(importlib.import_module(name))
        except ModuleNotFoundError as error:
            if error.name is not None and f"{name}.".startswith(f"{error.name}."):
                raise InvalidAction(f"there is no module {name!r}: check --actions and PYTHONPATH") from error
            raise _import_error(name, error) from error
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if getattr(error, "is_signal", False):  # the process was asked to stop, and the module is not to blame
                raise
            raise _import_error(name, error) from error
        finally:
            guard.restore()
    return collect_actions(imported)


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
