"""For how long a leader leads at least, by what it has heard of the other copies."""

from __future__ import annotations

import pytest

from opstream_journal.jetstream.leader_lease import lease_seconds


@pytest.mark.parametrize(
    ("silences", "seconds"),
    [
        pytest.param([], 2.5, id="the only copy"),
        pytest.param([0.5, 0.5], 2.0, id="all are heard"),
        pytest.param([0.5, None], 2.0, id="one of three was never heard"),
        pytest.param([600.0, 1.0], 1.5, id="one of three is silent"),
        pytest.param([3.0, 3.0], -0.5, id="all are silent"),
        pytest.param([None, None], 0.0, id="none was ever heard"),
        pytest.param([0.5, 9.0, 1.0, 9.0], 1.5, id="two of five are silent"),
        pytest.param([0.5, 9.0, 9.0, 9.0], -6.5, id="three of five are silent"),
    ],
)
def test_lease(silences: list[float | None], seconds: float) -> None:
    """The copies that a majority needs count, with the one that was heard of first among them."""
    assert lease_seconds(silences) == pytest.approx(seconds)
