"""Lets a child process die with the supervisor that started it, however that ends.

The supervisor names itself in a variable of the child's environment; the child, once Python runs, asks the kernel to
be killed together with its parent. That is done here and not between fork and exec, where hardly any Python is safe.
It holds across `exec`, so for the broker too. Linux only: elsewhere, children of a SIGKILLed supervisor stay.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

VARIABLE: Final = "OPSTREAM_SUPERVISOR_PID"

_PR_SET_PDEATHSIG: Final = 1


def die_with_supervisor() -> None:
    """Tie this process to the supervisor that started it, if one did. Ends it at once if that is gone already."""
    supervisor = os.environ.pop(VARIABLE, "")
    if not supervisor or sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(supervisor):
        sys.exit("opstream: error: the supervisor is gone")
