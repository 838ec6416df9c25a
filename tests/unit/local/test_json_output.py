"""The output of `opstream up` as JSON: lines of the processes pass as they are, and nothing passes for another's."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from opstream.local.json_output import JsonOutput, end_error_text

pytestmark = pytest.mark.unit

RUNNER = '{"time":"2026-11-30T00:00:00.000Z","level":"info","logger":"a","message":"x | y","service":"runner","ms":1}'


def shown(name: str, text: str) -> str:
    """What is printed for a line of a process."""
    stream = io.StringIO()
    JsonOutput(stream).line(name, text)
    assert stream.getvalue().count("\n") == 1
    return stream.getvalue().removesuffix("\n")


def test_lines_of_the_services_pass() -> None:
    """A line that a process has logged is printed byte for byte."""
    assert shown("runner", RUNNER) == RUNNER
    api = RUNNER.replace('"runner"', '"api"')
    assert shown("hub", api) == api


@pytest.mark.parametrize(
    "text",
    [
        "printed by an action",
        RUNNER.replace('"runner"', '"api"'),
        RUNNER[:-1] + ',"service":"api"}',
        RUNNER.replace('"service":"runner",', ""),
        RUNNER[:-1],
        RUNNER + "x",
        RUNNER.replace("x | y", "\u202e"),
        '{"time":',
        "[" * 50_000,
        '{"time":' + "[" * 50_000,
    ],
    ids=range(10),
)
def test_other_text_is_a_message(text: str) -> None:
    """What the runner prints can't pass for a line of another service, and never breaks the output."""
    found: dict[str, Any] = json.loads(shown("runner", text))
    assert (found["service"], found["logger"]) == ("runner", "output")
    assert found["message"].startswith(text[:8])


@pytest.mark.parametrize(
    ("line", "level", "message"),
    [
        ("[7] 2026/11/30 00:00:00.000000 [WRN] it is slow", "warning", "it is slow"),
        ("[7] 2026/11/30 00:00:00.000000 [ERR] no space [INF]", "error", "no space [INF]"),
    ],
)
def test_lines_of_the_broker(line: str, level: str, message: str) -> None:
    """nats-server's level and text are members."""
    found = json.loads(shown("broker", line))
    assert (found["level"], found["message"], found["logger"]) == (level, message, "nats-server")


def test_the_error_of_a_process() -> None:
    """The error with which a process ends is found in both formats, and in nothing that only quotes it."""
    line = RUNNER.replace('"logger":"a"', '"logger":"opstream.end"')
    assert end_error_text(line) == "x | y"
    assert end_error_text("opstream: error: no") == "no"
    assert end_error_text(RUNNER) == ""
    assert end_error_text("it said opstream: error: no") == ""
