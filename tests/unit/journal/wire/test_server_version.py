"""Which servers are too old."""

from __future__ import annotations

import pytest

from opstream_journal.wire.server_version import explain_old_version

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("version", ["2.14.99", "2.9.0", "1.99.99", "v2.14.0", "2.14.3-beta.1", "0.0.0"])
def test_too_old(version: str) -> None:
    """Servers before 2.15.0 are refused, with their version and the next step."""
    why = explain_old_version(version, "nats://n1:4222")
    assert f"nats://n1:4222 is nats-server {version}, and opstream needs 2.15.0 or later" in why
    assert why.endswith("Update every server of the cluster first")


@pytest.mark.parametrize("version", ["2.15.0", "2.15.1", "2.16.0-beta.1", "3.0.0", "v2.15.0", "", "dev", "main-1f2e"])
def test_new_enough(version: str) -> None:
    """Later servers are accepted, and those that don't say a version that can be read."""
    assert explain_old_version(version, "n1") == ""
