"""Standard output and error of a command, so that no reader of them and no encoding changes what the command does.

A reader may leave early (`… | head -1`), may not be there at all (`>&-`), or may expect another encoding than UTF-8.
None of that is the command's fault: it goes on, and its exit status says what it did. A full disk is another matter:
what was to be kept is lost, so the write fails.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import IO, Any, Final

_DESCRIPTORS: Final = (0, 1, 2)
_GONE: Final = frozenset({errno.EPIPE, errno.EIO})
"""A pipe without a reader, and a terminal that was closed."""


class _LenientFile(io.RawIOBase):
    """A file descriptor that discards what is written once its reader has left."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.is_reader_gone = False

    def write(self, data: Any, /) -> int | None:  # noqa: ANN401 - any buffer
        """Write a part of the data; all of it counts as written if the reader has left."""
        view = memoryview(data).cast("B")
        if not self.is_reader_gone:
            try:
                return os.write(self._descriptor, view)
            except BlockingIOError:
                return None  # as `RawIOBase` has it
            except OSError as error:
                # Also after a full disk: Python writes the rest once more at its end, which must not fail again.
                self.is_reader_gone = True
                if error.errno not in _GONE:
                    raise
        return len(view)

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return True for a terminal."""
        return os.isatty(self._descriptor)


def protect_standard_streams() -> None:
    """Replace stdout and stderr of this process by streams whose writes succeed without a reader, in any encoding.

    A descriptor that is closed is opened on /dev/null first: otherwise the next socket or file would get its number,
    and the output would go there. In a test that has put streams of its own in place nothing happens.
    """
    _open_closed_descriptors()
    # Python has no stream (None) for a descriptor that was closed when it started.
    if sys.stdout is sys.__stdout__:
        sys.stdout = sys.__stdout__ = _lenient(1, sys.__stdout__)  # type: ignore[misc]
    if sys.stderr is sys.__stderr__:
        sys.stderr = sys.__stderr__ = _lenient(2, sys.__stderr__)  # type: ignore[misc]


def is_reader_gone() -> bool:
    """Return True if the reader of standard output has left, so that an endless command may end."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return isinstance(raw, _LenientFile) and raw.is_reader_gone


def _lenient(descriptor: int, before: IO[str] | None) -> io.TextIOWrapper:
    raw = _LenientFile(descriptor)
    errors = getattr(before, "errors", None)
    if before is not None:
        with suppress(OSError):
            before.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors="backslashreplace" if errors in {None, "strict"} else errors,
        line_buffering=descriptor == 2 or raw.isatty(),
        write_through=getattr(before, "write_through", False),
    )


def _open_closed_descriptors() -> None:
    for descriptor in _DESCRIPTORS:
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            os.set_inheritable(descriptor, True)  # noqa: FBT003 - has no name
