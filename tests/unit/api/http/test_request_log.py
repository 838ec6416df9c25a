"""The request log: templates instead of paths, one line for each request, written in one go."""

from __future__ import annotations

import json
import logging

import pytest

from opstream_api.http.request_log import (
    MAX_COLLECTED,
    LoggedRequest,
    RequestLog,
    logged_request,
    path_template,
    submit_template,
)
from opstream_schemas.logs.json_formatter import BatchRecord, JsonLogFormatter
from opstream_schemas.names import Kind
from tests.support.system.wait import eventually

pytestmark = pytest.mark.unit


def request(**values: object) -> LoggedRequest:
    """A request that has ended."""
    made = LoggedRequest("GET", "request-1")
    made.status, made.is_aborted = 200, False
    for name, value in values.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("method", "path", "template"),
    [
        ("GET", "/healthz", "/healthz"),
        ("GET", "/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource"),
        ("GET", "/docs/page.js", "/docs/{file}"),
        ("GET", "/console", "/console"),
        ("GET", "/console/core/dom.js", "/console/{file}"),
        ("GET", "/status/op-1", "/status/{id}"),
        ("GET", "/status/op-1/events", "/status/{id}/events"),
        ("POST", "/status/op-1:cancel", "/status/{id}:cancel"),
        ("POST", "/book/42:secret-name", "/{resource}/{id}:{action}"),
        ("GET", "/webhooks/deliveries", "/webhooks/deliveries"),
        ("POST", "/webhooks/deliveries/a/b:redeliver", "/webhooks/deliveries/{id}/{endpoint}:redeliver"),
        ("POST", "/webhooks/7:secret-name", "/{resource}/{id}:{action}"),
        ("POST", "/subscribers/parked/a/1:retry", "/subscribers/parked/{durable}/{sequence}:retry"),
        ("GET", "/book/42", "/{path}"),
        ("GET", "/\nGET /status/{id} 200", "/{path}"),
    ],
)
def test_templates(method: str, path: str, template: str) -> None:
    """What a client wrote into a path is no part of its template."""
    assert path_template(method, path) == template


def test_templates_of_actions() -> None:
    """An action of the catalog is named."""
    assert submit_template(Kind("book", "upload"), True) == "/book/{id}:upload"
    assert submit_template(Kind("book", "upload"), False) == "/book:upload"


@pytest.mark.parametrize("caller", ["eve status=500", 'eve"\n2026 INFO all', "eve\u2028", "日本"])
def test_a_caller_forges_no_field(caller: str) -> None:
    """The name of a caller that is not a plain word is in quotes, with escapes."""
    line = request(caller=caller, route="/status/{id}", seconds=0.0015, operation_id="op-1").text()
    before, _, after = line.partition(" caller=")
    assert before == "GET /status/{id} 200 1.5 ms operation=op-1"
    quoted, _, end = after.rpartition(" request=")
    assert json.loads(quoted) == caller
    assert quoted.isascii()
    assert quoted.isprintable()
    assert end == "request-1"


def test_no_operation_of_a_foreign_name() -> None:
    """What can't be the id of an operation is left out of both formats."""
    made = request(operation_id='x" status=500\n', route="/status/{id}")
    assert "operation" not in made.text()
    assert "operationId" not in made.members_json()


async def test_lines_are_written_together(caplog: pytest.LogCaptureFixture) -> None:
    """Lines are one record, after a moment, or at once if there are many; each has its own time."""
    caplog.set_level(logging.INFO)
    now = 0.0
    log = RequestLog(clock=lambda: now, now=lambda: 100 + now)
    log.add(request(), "/status/op-1", 0.0)
    now = 1.0
    log.add(request(status=404), "/status/op-2", 0.5)
    assert caplog.records == []
    log.flush()
    (batch,) = caplog.records
    assert isinstance(batch, BatchRecord)
    lines = [json.loads(line) for line in JsonLogFormatter().format(batch).splitlines()]
    assert [(one["status"], one["ms"], one["time"][17:23]) for one in lines] == [
        (200, 0, "40.000"),
        (404, 500, "41.000"),
    ]
    for _ in range(MAX_COLLECTED + 1):
        log.add(request(), "/status/op-1", 0.0)
    assert len(caplog.records) == 2
    log.flush()
    log.flush()
    assert len(caplog.records) == 3


async def test_the_last_line_comes_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    """No further request is needed."""
    caplog.set_level(logging.INFO)
    log = RequestLog()
    log.add(request(), "/status/op-1", log.clock())
    await eventually(lambda: caplog.records)


async def test_levels(caplog: pytest.LogCaptureFixture) -> None:
    """A probe is a line at debug; at warning there is none at all."""
    caplog.set_level(logging.INFO)
    log = RequestLog()
    log.add(request(), "/readyz", log.clock())
    caplog.set_level(logging.WARNING)
    assert not RequestLog.is_enabled()
    log.add(request(), "/status/op-1", log.clock())
    log.flush()
    assert caplog.records == []
    caplog.set_level(logging.DEBUG)
    log.add(request(), "/readyz", log.clock())
    (probe,) = caplog.records
    assert probe.levelname == "DEBUG"
    assert "GET /readyz 200" in probe.getMessage()


def test_without_a_log() -> None:
    """Routes may say what they know of a request that is not logged."""
    logged_request({}).route = "/status/{id}"
