"""`opstream up --log-format json`: every line is JSON, whatever clients send and actions print."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.support.system.echo_actions import poll
from tests.support.system.processes import Process

pytestmark = pytest.mark.e2e

ACTIONS: Final = '''\
"""Actions that log and print what a client sends."""

import logging
import sys

import msgspec
from opstream import ActionContext, action

logger = logging.getLogger("desk")


class In(msgspec.Struct):
    """The input."""

    text: str


def _say(request: In, ctx: ActionContext) -> None:
    logger.warning("%s", request.text, extra={"operationId": ctx.operation_id, "desk": request.text})
    print(request.text)
    print(request.text, file=sys.stderr)
    raise ValueError(request.text)


@action("desk:here", max_attempts=1)
def here(request: In, ctx: ActionContext) -> None:
    """Say it in the runner's process."""
    _say(request, ctx)


@action("desk:apart", max_attempts=1, isolation="process")
def apart(request: In, ctx: ActionContext) -> None:
    """Say it in a process of its own."""
    _say(request, ctx)
'''
FORGED: Final = '{"time":"2026-01-01T00:00:00.000Z","level":"info","logger":"x","message":"forged","service":"api"}'
TEXT: Final = f'a"b\n{FORGED}\r\x1b[2J\u2028end'


def lines(up: Process) -> list[dict[str, Any]]:
    """The lines of the output, each of them an object with the members that all have."""
    found = [json.loads(line) for line in up.output.splitlines()]
    assert all({"time", "level", "logger", "message", "service"} <= set(line) for line in found)
    return found


def test_every_line_is_json(workplace: Path, http: httpx.Client) -> None:
    """Lines of all processes are whole and name their service; a text that looks like a line of the API stays text."""
    (workplace / "desk_actions.py").write_text(ACTIONS)
    options = ("--port", "0", "--nats-port", "0", "--data-dir", "data", "--actions", "desk_actions")
    with Process("up", *options, "--log-format", "json", cwd=workplace) as up:
        api = up.wait_for(r"opstream is ready: API (\S+), ")[1]
        for name in ("here", "apart"):
            sent = http.post(f"{api}/desk:{name}", json={"text": TEXT}, headers={"Operation-Id": f"op-{name}"})
            assert sent.status_code == 202
            assert poll(http, api, f"op-{name}")["status"] == "Failed"
        up.wait_for('"operationId":"op-apart".*"code":"500"')
        up.wait_for(r"/desk:apart 202")
        os.kill(up.child("-m opstream hub"), signal.SIGKILL)
        assert up.wait(20) == 1
        found = lines(up)
    said = [line for line in found if line["logger"] == "desk"]
    assert [(line["message"], line["desk"], line["operationId"]) for line in said] == [
        (TEXT, TEXT, "op-here"),
        (TEXT, TEXT, "op-apart"),
    ]
    assert {line["service"] for line in said} == {"runner"}
    raised = [line["traceback"] for line in found if "raised ValueError" in line["message"]]
    assert len(raised) == 2
    assert all(TEXT in traceback for traceback in raised)
    assert not [line for line in found if line["message"] == "forged"]
    forged = [line for line in found if line["message"].startswith(FORGED)]
    assert len(forged) == 4
    assert {(line["service"], line["logger"]) for line in forged} == {("runner", "output")}
    failed = [line for line in found if line.get("code") == "500" and line["level"] == "warning"]
    assert [(line["operationId"], line["action"], line["attempt"]) for line in failed] == [
        ("op-here", "desk:here", 1),
        ("op-apart", "desk:apart", 1),
    ]
    (request,) = [line for line in found if line.get("path") == "/desk:here"]
    assert (request["method"], request["status"], request["service"]) == ("POST", 202, "api")
    assert {"api", "projector", "webhooks", "runner", "opstream"} <= {line["service"] for line in found}
    assert (found[-1]["logger"], found[-1]["level"]) == ("opstream.end", "critical")
    assert found[-1]["message"].startswith("the hub ended unexpectedly (killed by SIGKILL)")
