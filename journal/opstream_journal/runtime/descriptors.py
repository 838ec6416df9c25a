"""File descriptors: as many as the system allows, and a condition while there is none left.

A process without a free descriptor can accept no connection: the event loop closes each at once, without a word.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
from typing import Final

from .conditions import Conditions

logger = logging.getLogger(__name__)

_WANTED: Final = 16_384
"""More would serve no connection: `connection_limit` is less."""
_MAX_CONNECTIONS: Final = 10_000
"""Of one process, each with 20 to 50 KB."""
_RESERVED: Final = 64
"""Descriptors for the broker's connection, logs and files."""
_MIN_CONNECTIONS: Final = 16
_EXHAUSTED: Final = "OutOfFileDescriptors"


def raise_limit() -> None:
    """Raise the soft limit of file descriptors, which is 1,024 on most systems, as far as the hard one allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(hard, _WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connection_limit() -> int:
    """Return how many connections this process can have at once, by its limit of file descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MAX_CONNECTIONS
    return max(_MIN_CONNECTIONS, min(_MAX_CONNECTIONS, soft - _RESERVED))


def check_descriptors(conditions: Conditions) -> None:
    """Report that the process has no free file descriptor, or that it has again."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        conditions.report(
            _EXHAUSTED,
            f"there is no free file descriptor ({error.strerror}, the limit of this process is {limit}), "
            "so it can't accept connections or open files",
            "raise the limit (ulimit -n, LimitNOFILE= of systemd, nofile of a container), or find what holds them",
            is_blocking=True,
        )
    else:
        conditions.resolve(_EXHAUSTED)
