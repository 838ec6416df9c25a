"""What a caller may use of the stream of schedules, so that none takes the room of the others."""

from __future__ import annotations

import pytest

from opstream_api.access.principal import Owner
from opstream_api.errors import ApiError
from opstream_api.schedules.schedule_usage import (
    MAX_BYTES_OF_CALLER,
    MAX_NAMES_OF_CALLER,
    MAX_OF_CALLER,
    MAX_OF_TENANT,
    ScheduleUsage,
)

pytestmark = pytest.mark.unit

ANN, BOB, EVE = Owner("acme", "ann"), Owner("acme", "bob"), Owner("evil", "eve")


def refusal(usage: ScheduleUsage, owner: Owner, key: str = "new", size: int = 100, *, is_new: bool = True) -> str:
    """Why a caller may not set a schedule; empty if it may."""
    try:
        usage.check(key, owner, size, is_new=is_new, has_access=True)
    except ApiError as error:
        return f"{error.code}: {error}"
    return ""


def test_schedules_of_a_caller() -> None:
    """One who has as many as it may have changes them, and makes none; the message counts its own, and others go on."""
    usage = ScheduleUsage()
    for number in range(MAX_OF_CALLER):
        usage.note(f"k{number}", ANN, number + 1, 100, is_there=True)
    assert refusal(usage, ANN) == f"TooManySchedules: you have {MAX_OF_CALLER} schedules: delete one first"
    assert refusal(usage, ANN, "k0", is_new=False) == refusal(usage, BOB) == refusal(usage, EVE) == ""
    usage.note("k0", ANN, 1_000, 100, is_there=False)
    assert refusal(usage, ANN) == ""


def test_schedules_of_a_tenant() -> None:
    """Many callers of one tenant have no more than it may have; another tenant goes on."""
    usage = ScheduleUsage()
    for number in range(MAX_OF_TENANT):
        usage.note(f"k{number}", Owner("acme", f"u{number % 50}"), number + 1, 100, is_there=True)
    assert refusal(usage, ANN) == f"TooManySchedules: your tenant has {MAX_OF_TENANT} schedules: delete one first"
    assert refusal(usage, EVE) == ""


def test_names_are_not_forgotten() -> None:
    """One who makes and deletes schedules of fresh names comes to an end, and uses its old names again."""
    usage = ScheduleUsage()
    for number in range(MAX_NAMES_OF_CALLER):
        usage.note(f"k{number}", ANN, 2 * number + 1, 100, is_there=True)
        usage.note(f"k{number}", ANN, 2 * number + 2, 100, is_there=False)
    assert "names" in refusal(usage, ANN)
    assert refusal(usage, ANN, "k7") == refusal(usage, EVE) == ""


def test_bytes_of_a_caller() -> None:
    """One who changes large schedules again and again comes to an end; what is read twice counts once."""
    usage = ScheduleUsage()
    size = 64 * 1024
    for sequence in range(1, MAX_BYTES_OF_CALLER // size + 1):
        for _ in range(2):
            usage.note(f"k{sequence % 5}", ANN, sequence, size, is_there=True)
    assert "you have changed schedules so often" in refusal(usage, ANN, "k0", is_new=False)
    assert refusal(usage, EVE, size=size) == ""


def test_a_full_history_is_replaced() -> None:
    """Of a name whose oldest decision goes, another one of the same size takes no more room."""
    usage = ScheduleUsage()
    for sequence in range(1, 601):
        usage.note(f"k{sequence % 3}", ANN, sequence, 60_000, is_there=True)
    assert refusal(usage, ANN, "k1", 60_000, is_new=False) == ""
    assert refusal(usage, ANN, "k9", 60_000) != ""
