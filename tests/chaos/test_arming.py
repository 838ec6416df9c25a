"""Values of `OPSTREAM_CRASH_AT`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from opstream_journal.runtime import crash_points as crash
from tests.support.system.processes import run


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    """Disarm all points in the test's process."""
    yield
    crash.arm("")


@pytest.mark.unit
@pytest.mark.parametrize("setting", ["nowhere", "api.recorded:0", "api.recorded:-1", "api.recorded:often", ":1"])
def test_what_names_no_point(setting: str) -> None:
    """An invalid value is refused, and nothing is armed."""
    with pytest.raises(ValueError, match=r"CrashPoint|counts|literal"):
        crash.arm(setting)
    for point in crash.CrashPoint:
        crash.crash_point(point)


@pytest.mark.unit
def test_passes_that_do_not_count() -> None:
    """Other points, earlier passes and a disarmed point do nothing."""
    crash.arm("api.recorded:2")
    crash.crash_point(crash.CrashPoint.RUNNER_STARTED)
    crash.crash_point(crash.CrashPoint.API_RECORDED)
    crash.arm("")
    crash.crash_point(crash.CrashPoint.API_RECORDED)


@pytest.mark.e2e
def test_a_service_that_is_armed_wrongly() -> None:
    """A service with an invalid value does not start, and says why in one line."""
    ended = run("projector", extra={crash.CRASH_VARIABLE: "nowhere"})
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert ended.stderr.startswith(f"opstream: error: {crash.CRASH_VARIABLE}: 'nowhere'")
