"""What a large input costs: each stage of its validation, and a whole POST.

The input is the bookshelf's: a list of files, each with a path and a hash.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import msgspec
import uuid_utils

from bench.harness import http_client
from bench.harness.figures import Latency, percentiles
from bench.harness.requests import RESOURCE_ID, make_request
from bench.reading.held_actions import files
from bookshelf.records import MAX_FILES
from opstream_api.inputs.input_validation import InputValidator, decode_input
from opstream_schemas.events import encode_event
from opstream_schemas.operation.fold import first_event
from opstream_schemas.status_monitor import request_hash
from opstream_schemas.text import check_json

PATH: Final = "/bench/42:files"
SIZE: Final = 100_000
"""Approximate bytes of the large input."""

_TIMES: Final = 200


class Validation(msgspec.Struct, frozen=True, kw_only=True):
    """The task."""

    port: int
    samples: int
    """POSTs of each size."""


class InputFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One size of input."""

    size: int
    """Bytes."""
    files: int
    steps: dict[str, float]
    """Microseconds by stage, the median of many runs; `all` is their sum."""
    post: Latency
    """From the first byte sent to the whole response, one POST at a time."""


class ValidationResult(msgspec.Struct, frozen=True):
    """The small one and the large one."""

    inputs: list[InputFigures]


async def run(validation: Validation) -> ValidationResult:
    """Run the task."""
    bodies = [_body(1), _body(_count(SIZE))]
    connection = await http_client.HttpConnection.open(validation.port)
    posts: list[list[float]] = [[] for _ in bodies]
    for _ in range(validation.samples):
        for body, times in zip(bodies, posts, strict=True):
            times.append(await _post(connection, body))
    connection.close()
    return ValidationResult([_figures(body, times) for body, times in zip(bodies, posts, strict=True)])


async def _post(connection: http_client.HttpConnection, body: bytes) -> float:
    request = connection.post(PATH, body)
    began = time.perf_counter()
    answer = await connection.send(request, http_client.ACCEPTED)
    seconds = time.perf_counter() - began
    operation_id = http_client.decode_monitor(answer).id
    while not await connection.has_succeeded(operation_id):
        continue
    return seconds


def _figures(body: bytes, posts: list[float]) -> InputFigures:
    document, value = decode_input(body)
    kind = files.spec.kind
    validators = InputValidator()
    now = datetime.now(UTC)
    requested = make_request(kind, document, now)
    event = first_event(str(uuid_utils.uuid7()), requested, id=str(uuid_utils.uuid7()), source="bench", time=now)
    steps: dict[str, Callable[[], Any]] = {
        "encoding and nesting": partial(check_json, body),
        "decode": partial(msgspec.json.decode, body),
        "schema": partial(validators.validate, files.spec, document, value),
        "request hash": partial(request_hash, kind, RESOURCE_ID, value, ""),
        "event, encoded and decoded": partial(encode_event, event),
    }
    costs = {name: _cost(step) for name, step in steps.items()}
    return InputFigures(
        size=len(body),
        files=len(value["files"]),
        steps=costs | {"all": sum(costs.values())},
        post=percentiles(posts),
    )


def _cost(step: Callable[[], Any]) -> float:
    times = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return percentiles(times).p50 * 1000


def _count(size: int) -> int:
    return min(MAX_FILES, size * 100 // len(_body(100)))


def _body(count: int) -> bytes:
    listed = [
        {"path": f"chapters/{number:04}.md", "sha256": hashlib.sha256(b"%d" % number).hexdigest()}
        for number in range(count)
    ]
    return msgspec.json.encode({"title": "A book of many chapters", "files": listed})


if __name__ == "__main__":
    http_client.run_task(run, Validation)
