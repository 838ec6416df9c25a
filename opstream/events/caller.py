"""Where the author of a subscriber wrote what is not valid: an error names that line, not one of this package."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from .errors import InvalidSubscription


def caller_place() -> str:
    """Return file and line of the code that called the caller of this function."""
    frame = sys._getframe(2)  # noqa: SLF001 - the documented way to a caller
    relative = os.path.relpath(frame.f_code.co_filename)
    filename = frame.f_code.co_filename if relative.startswith("..") else relative
    return f"{filename}:{frame.f_lineno}"


@contextlib.contextmanager
def errors_at(place: str) -> Iterator[None]:
    """Let an error of the body begin with a place, and have no traceback of the checks that found it.

    Raises:
        InvalidSubscription: the body raised it.
    """
    try:
        yield
    except InvalidSubscription as error:
        raise InvalidSubscription(f"{place}: {error}") from None
