"""Hypothesis profiles: no deadlines on shared machines, the same examples on every CI run, and `thorough` by hand
(`pytest --hypothesis-profile=thorough`). And Ctrl-C reaches the processes that tests start, any captured text the
process that collects the results, and files the workers in an order that leaves no core idle. All processes of a run
share what the first one compiles, and work in memory instead of on a disk."""

import os
import shutil
import signal
import tempfile
from collections.abc import Generator

import pytest
from hypothesis import settings
from xdist.remote import Producer

from tests.support.session.memory_folder import memory_folder
from tests.support.session.schedule import FileSchedule, make_schedule

settings.register_profile("local", deadline=None, max_examples=60)
settings.register_profile("ci", settings.get_profile("local"), derandomize=True)
settings.register_profile("thorough", settings.get_profile("local"), max_examples=2000)
settings.load_profile("ci" if os.environ.get("CI") else "local")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A process that a shell starts in the background ignores SIGINT, and its children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `make upgrades`, `make signals` and `make large` ask for what takes too long for each run."""
    parser.addoption("--all-releases", action="store_true", help="upgrade from every release, not from a few only")
    parser.addoption("--long", action="store_true", help="run the tests that are marked as long, and no others")
    parser.addoption("--all-signals", action="store_true", help="send each signal both before and in its wait")
    parser.addoption("--payload-mib", type=int, default=96, help="size of the payload that takes flat memory")


def pytest_configure(config: pytest.Config) -> None:
    """Give all processes of this run one folder for bytecode, and one in memory for what they write.

    Tests start more than a thousand processes. Where Python may write no bytecode, each of them compiles all that it
    imports, which takes half of a service's start. And more than a thousand brokers sync each write: on a disk that
    takes a fifth of all processor time.
    """
    if hasattr(config, "workerinput"):
        return
    if "TMPDIR" not in os.environ and (memory := memory_folder()) is not None:
        os.environ["TMPDIR"] = tempfile.tempdir = memory
        config.add_cleanup(lambda: shutil.rmtree(memory, ignore_errors=True))
    if "PYTHONPYCACHEPREFIX" not in os.environ:
        folder = tempfile.mkdtemp(prefix="opstream-bytecode-")
        os.environ["PYTHONPYCACHEPREFIX"] = folder
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the long tests, or with `--long` all others."""
    wanted = bool(config.getoption("long"))
    left_out = [item for item in items if (item.get_closest_marker("long") is not None) != wanted]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if (item.get_closest_marker("long") is not None) == wanted]


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
