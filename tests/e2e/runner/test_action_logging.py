"""A module of actions that configures `logging`: the runner's own lines appear all the same, as they always look."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from opstream_schemas.names import Kind
from opstream_schemas.operation.state import Status
from tests.support.broker.server import Broker
from tests.support.runner.stage import RunnerStage
from tests.support.system.processes import Process

pytestmark = pytest.mark.e2e

TEMPLATE = '''\
import logging
import logging.config

import msgspec
from opstream import ActionContext, action


def configure():
    {code}


{when}


class In(msgspec.Struct):
    """The input."""


@action("log:boom", max_attempts=2, backoff=0.01, isolation="{isolation}")
def boom(request: In, ctx: ActionContext) -> None:
    {inside}
    logging.getLogger("mine").error("a line of the author")
    raise ValueError("where does this go?")
'''
WAYS = {
    "dictConfig": """logging.config.dictConfig({"version": 1, "handlers": {"c": {"class": "logging.StreamHandler"}},
        "root": {"level": "ERROR", "handlers": ["c"]}})""",
    "fileConfig": 'logging.config.fileConfig("log.ini")',
    "basicConfig": 'logging.basicConfig(level="ERROR", format="AUTHOR %(message)s", force=True)',
    "disable": "logging.disable(logging.CRITICAL)",
    "removed": "logging.getLogger().handlers.clear()",
}
INI = """\
[loggers]
keys=root
[handlers]
keys=c
[formatters]
keys=
[logger_root]
level=ERROR
handlers=c
[handler_c]
class=StreamHandler
args=()
"""
LINE = r"^\d{4}-\d\d-\d\dT[\d:.]+Z "


@pytest.fixture
def start(broker: Broker, stage: RunnerStage, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts a runner of a module that configures logging in some way."""
    with ExitStack() as stack:

        def start(way: str, isolation: str, *, is_at_import: bool) -> Process:
            source = TEMPLATE.format(
                code=WAYS[way],
                isolation=isolation,
                when="configure()" if is_at_import else "",
                inside="pass" if is_at_import else "configure()",
            )
            (tmp_path / "logging_actions.py").write_text(source)
            (tmp_path / "log.ini").write_text(INI)
            command = ("runner", "--nats", broker.url, "--actions", "logging_actions")
            return stack.enter_context(Process(*command, cwd=tmp_path))

        yield start


@pytest.mark.parametrize(
    ("way", "isolation", "is_at_import"),
    [
        *((way, "none", True) for way in WAYS),
        ("dictConfig", "process", True),
        ("fileConfig", "none", False),
        ("dictConfig", "process", False),
    ],
)
async def test_our_lines_appear(
    stage: RunnerStage, start: Callable[..., Process], way: str, isolation: str, is_at_import: bool
) -> None:
    """The traceback of a handler, and what the runner says before and after, are in the log in the usual format."""
    runner = start(way, isolation, is_at_import=is_at_import)
    runner.wait_for(LINE + "INFO    opstream_runner.main: running log:boom")
    await stage.request("op-1", kind=Kind("log", "boom"))
    assert (await stage.ended("op-1", within=20)).status is Status.FAILED
    lines = [
        r"ERROR   opstream_runner.handler.invocation: operation op-1: log:boom raised ValueError in attempt 1",
        r"INFO    opstream_runner.attempt.completion: operation op-1 of log:boom: attempt 1 failed",
        r"WARNING opstream_runner.attempt.completion: operation op-1 ",
    ]
    for line in lines:
        runner.wait_for(LINE + line)
    runner.wait_for("ValueError: where does this go")
    runner.send(signal.SIGTERM)
    assert runner.wait(10) == 0
    runner.wait_for(LINE + "INFO    opstream_runner.main: received SIGTERM")
    assert runner.output.count("received SIGTERM") == 1
    assert runner.output.count("raised ValueError in attempt 1") == 1


async def test_a_logger_that_the_author_gave_a_handler(stage: RunnerStage, broker: Broker, tmp_path: Path) -> None:
    """An author who configures our logger by its name has the last word."""
    (tmp_path / "own_actions.py").write_text(
        TEMPLATE.format(
            code="""logging.config.dictConfig({"version": 1,
        "formatters": {"f": {"format": "AUTHOR %(message)s"}},
        "handlers": {"c": {"class": "logging.StreamHandler", "formatter": "f"}},
        "loggers": {"opstream_runner": {"level": "INFO", "handlers": ["c"], "propagate": False}}})""",
            isolation="none",
            when="configure()",
            inside="pass",
        )
    )
    command = ("runner", "--nats", broker.url, "--actions", "own_actions")
    with Process(*command, cwd=tmp_path) as runner:
        runner.wait_for("^AUTHOR running log:boom")
        assert "opstream_runner.main: running" not in runner.output
