"""What `OPSTREAM_CRASH_AT` may be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from opstream_journal.runtime import crash_points as crash
from tests.support.system.processes import run


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    """Leave no point armed in the process of the tests."""
    yield
    crash.arm("")


@pytest.mark.unit
@pytest.mark.parametrize("setting", ["nowhere", "api.recorded:0", "api.recorded:-1", "api.recorded:often", ":1"])
def test_what_names_no_point(setting: str) -> None:
    """It is refused, and nothing is armed."""
    with pytest.raises(ValueError, match=r"CrashPoint|counts|literal"):
        crash.arm(setting)
    for point in crash.CrashPoint:
        crash.crash_point(point)


@pytest.mark.unit
def test_passes_that_do_not_count() -> None:
    """Other points, and passes before the one that was named, do nothing; neither does a point that was disarmed."""
    crash.arm("api.recorded:2")
    crash.crash_point(crash.CrashPoint.RUNNER_STARTED)
    crash.crash_point(crash.CrashPoint.API_RECORDED)
    crash.arm("")
    crash.crash_point(crash.CrashPoint.API_RECORDED)


@pytest.mark.e2e
def test_a_service_that_is_armed_wrongly() -> None:
    """It does not start, and says why in one line."""
    ended = run("projector", extra={crash.CRASH_VARIABLE: "nowhere"})
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert ended.stderr.startswith(f"opstream: error: {crash.CRASH_VARIABLE}: 'nowhere'")
