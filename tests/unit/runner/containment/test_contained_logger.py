"""Our log calls return, whatever an author's code did to `logging`, and their lines are written somewhere."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Final, NoReturn

import pytest

from opstream_runner.containment import log_guard
from opstream_runner.containment.contained_logger import ContainedLogger, contain

pytestmark = pytest.mark.unit


class Asked(SystemExit):
    """As the `opstream` command ends a process by a signal."""

    is_signal = True


def refuse(*_: Any, **__: Any) -> NoReturn:
    raise SystemExit("not with me")


class Refusing(logging.Handler):
    """A handler that raises."""

    handle: Any = refuse


class Keeping(logging.Handler):
    """A handler that keeps its lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(self.format(record))


FORMAT: Final = logging.Formatter("%(levelname)s %(name)s: %(message)s")


@pytest.fixture
def ours() -> Iterator[logging.Logger]:
    """A logger of our own that writes nowhere else."""
    logger = logging.Logger("opstream_runner.one")  # noqa: LOG001 - it is of this test only
    logger.propagate = False
    contain(logger, FORMAT)
    factory = logging.getLogRecordFactory()
    yield logger
    logging.setLogRecordFactory(factory)


def test_a_factory_that_raises(ours: logging.Logger) -> None:
    """The record is a plain one."""
    kept = Keeping()
    ours.addHandler(kept)
    for factory in (refuse, lambda *_, **__: None):
        logging.setLogRecordFactory(factory)  # type: ignore[arg-type]
        ours.error("an %s", "error", exc_info=ValueError("why"), stack_info=True)
    assert [line.partition("\n")[0] for line in kept.lines] == ["an error"] * 2
    assert all("ValueError: why" in line for line in kept.lines)


def test_a_handler_that_raises(ours: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    """The other handlers have the line; standard error has it only if there is no other."""
    kept = Keeping()
    ours.addHandler(Refusing())
    ours.warning("alone %s", 1)
    ours.addHandler(kept)
    ours.warning("together")
    assert (kept.lines, capfd.readouterr().err) == (["together"], "WARNING opstream_runner.one: alone 1\n")


def test_a_filter_that_raises(ours: logging.Logger) -> None:
    """A line is not lost by it; a filter that works drops a line."""
    kept = Keeping()
    ours.addHandler(kept)
    ours.addFilter(lambda record: record.msg != "dropped")
    ours.error("dropped")
    ours.filters.clear()
    ours.addFilter(refuse)
    ours.error("kept")
    assert kept.lines == ["kept"]


def test_a_stream_that_is_closed(ours: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    """The line goes to standard error."""
    with open("/dev/null", "w", encoding="utf-8") as stream:  # noqa: PTH123
        ours.addHandler(logging.StreamHandler(stream))
    ours.error("late")
    assert capfd.readouterr().err == "ERROR opstream_runner.one: late\n"


def test_a_line_that_has_no_text(ours: logging.Logger) -> None:
    """Nothing can be written, and nothing is raised."""

    class Mute:
        __str__: Any = refuse
        __repr__: Any = refuse

    ours.addHandler(Refusing())
    ours.error("%s", Mute())


def test_a_signal_in_a_log_call(ours: logging.Logger) -> None:
    """It still ends the process."""

    def asked(_: logging.LogRecord) -> NoReturn:
        raise Asked(0)

    ours.addFilter(asked)
    with pytest.raises(Asked):
        ours.error("x")


def test_which_loggers_are_contained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours and those of the libraries in the runner's loop, also one that is made later; an author's stays as it is."""
    monkeypatch.setattr(log_guard._Process, "logs", None)
    manager = logging.getLogger().manager
    monkeypatch.setattr(manager, "loggerDict", {})
    before = logging.getLogger("opstream_journal.early"), logging.getLogger("asyncio"), logging.getLogger("mine")
    log_guard.protect_logs()
    later = logging.getLogger("opstream_runner.late")
    log_guard.restore_logs()
    assert [isinstance(one, ContainedLogger) for one in (*before, later)] == [True, True, False, True]
