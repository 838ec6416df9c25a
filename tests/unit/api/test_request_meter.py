"""The metrics of HTTP requests: no client makes a series."""

from __future__ import annotations

import random
import string

import pytest

from opstream_api.request_meter import RequestMeter

pytestmark = pytest.mark.unit

ROUTES = {
    "/console/{file}",
    "/docs/{file}",
    "/status/{id}",
    "/status/{id}/events",
    "/status/{id}:cancel",
    "/{path}",
    "/{resource}/{id}:{action}",
}


def test_a_flood_of_paths_makes_no_series() -> None:
    """Ten thousand invented actions, ids, paths and methods make no more series than there are templates."""
    meter, draw = RequestMeter(), random.Random(7)

    def word() -> str:
        return "".join(draw.choices(string.ascii_letters + ":/_-é", k=12)) + draw.choice(["", ":cancel", "/events"])

    for _ in range(10_000):
        meter.count(
            draw.choice(["GET", "POST", "BREW"]),
            draw.choice(["/", "/status/", "/docs/", "/console/"]) + word(),
            404,
            0.001,
        )
    requests, seconds = meter.instruments
    shown = [sample.labels for sample in requests.samples()]
    assert {route for route, _ in shown} == ROUTES
    assert len(shown) == len(ROUTES)
    assert {sample.labels[0] for sample in seconds.samples()} == ROUTES
    assert sum(sample.value for sample in requests.samples()) == 10_000
