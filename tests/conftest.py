"""Hypothesis profiles: no deadlines on shared machines, the same examples on every CI run, and `thorough` by hand
(`pytest --hypothesis-profile=thorough`). And Ctrl-C reaches the processes that tests start, any captured text the
process that collects the results, and files the workers in an order that leaves no core idle."""

import os
import signal
from collections.abc import Generator

import pytest
from hypothesis import settings
from xdist.remote import Producer

from tests.support.system.schedule import FileSchedule, make_schedule

settings.register_profile("local", deadline=None, max_examples=60)
settings.register_profile("ci", settings.get_profile("local"), derandomize=True)
settings.register_profile("thorough", settings.get_profile("local"), max_examples=2000)
settings.load_profile("ci" if os.environ.get("CI") else "local")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A process that a shell starts in the background ignores SIGINT, and its children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape lone surrogates in what a test logged and printed: pytest-xdist ends the whole run at the first one."""
    report = yield
    report.sections = [(title, _encodable(text)) for title, text in report.sections]
    return report


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FileSchedule | None:
    """Hand out the files in our order."""
    return make_schedule(config, log)


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
