"""For tests of actions: `run` plays one in this process, `serving` starts a whole opstream on free ports.

`plugin` has the fixtures, and is the only module that imports pytest (docs/testing.md).
"""

from .errors import FaultFound, RunRefused, StartFailed
from .local_system import LocalSystem, serving
from .play.children import ChildRun
from .play.crash_moment import CrashMoment
from .play.signals import Signal
from .results import RunResult, StepRun
from .runs import EVERY_STEP, run, run_async

__all__ = [
    "EVERY_STEP",
    "ChildRun",
    "CrashMoment",
    "FaultFound",
    "LocalSystem",
    "RunRefused",
    "RunResult",
    "Signal",
    "StartFailed",
    "StepRun",
    "run",
    "run_async",
    "serving",
]
