"""`opstream.testing` runs confidential actions, and seals nothing."""

from __future__ import annotations

import pytest

from opstream.testing import EVERY_STEP, run
from opstream_schemas.operation.state import Status
from tests.support.keys.confidential_actions import Checked, Person, check

pytestmark = pytest.mark.unit


def test_a_test_reads_everything() -> None:
    """Result and history are in the clear, also after a crash at every moment."""
    result = run(check, Person("canary"), crash_at=EVERY_STEP)
    assert result.status is Status.SUCCEEDED
    assert result.result == Checked(["looked up canary", "canary"])
