"""The system of the benchmark on which authentication, metrics and roles are on: they are, and it carries its load."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from bench.harness.process_usage import BenchFailed
from bench.releases.comparison import Side
from bench.switches.switched_system import SWITCHES, SwitchedSystem
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e


def test_what_is_named_is_on(tmp_path: Path) -> None:
    """No request without the key and no login without a role's is taken, while a load with them ends; and a page of
    metrics that can't be read ends the measurement."""
    with SwitchedSystem(tmp_path, SWITCHES) as system:
        turn = Side(system, 4).turn(40, 2)
        assert turn.rate > 0
        assert min(turn.cpu.values()) > 0
        with httpx.Client(base_url=f"http://127.0.0.1:{system.port}", trust_env=False) as http:
            assert http.get("/status/one").status_code == 401
            known = {"Authorization": f"Bearer {system.key}"}
            assert http.get("/status/one", headers=known).status_code == 404
        system.options["provision"] = ("--connect-timeout", "1s")
        with pytest.raises(BenchFailed, match=r"Authorization|log ?in"):
            system.provision()
        system.stop("webhooks")
        asyncio.run(eventually(lambda: fails(system), within=15))


def fails(system: SwitchedSystem) -> bool:
    """Return True once the benchmark would end with an error of a scrape."""
    try:
        system.check_processes()
    except BenchFailed as error:
        return "/metrics" in str(error)
    return False
