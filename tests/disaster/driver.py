"""Plays rounds of scenarios.

    result = await play_round(LeaderKill(), folder, seed=7, size=SHORT)
    assert result.breaches == []

The seed decides what clients do and whom the disaster strikes. It does not decide the timing of the processes.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from random import Random

from tests.disaster.scenario import Scenario
from tests.disaster.stage import RoundResult, Size, Stage
from tests.support.disaster.routed_cluster import RoutedCluster
from tests.support.disaster.system import DisasterSystem
from tests.support.webhooks.receiver import receiving


async def play_round(
    scenario: Scenario, folder: Path, *, seed: int, size: Size, say: Callable[[str], None] = print
) -> RoundResult:
    """Play one round in an empty folder. What goes wrong is a breach of its result."""
    result = RoundResult(scenario=scenario.name, seed=seed, skipped=scenario.reason_to_skip())
    if result.skipped:
        say(f"skipped: {result.skipped}")
        return result
    begin = time.monotonic()
    with scenario.ground(folder), ExitStack() as stack:
        async with AsyncExitStack() as services:
            cluster = receiver = None
            if scenario.has_cluster:
                cluster = await services.enter_async_context(RoutedCluster.started())
            if scenario.has_webhooks:
                receiver = await services.enter_async_context(receiving())
            system = DisasterSystem(folder, stack, cluster=cluster, hook=receiver.url if receiver else "")
            stage = Stage(system, result, Random(f"{seed} {scenario.name}"), size, say, receiver)
            try:
                scenario.prepare(stage)
                await system.begin_all()
                stage.say(f"{scenario.name}: everything runs")
                await scenario.play(stage)
            except Exception:  # noqa: BLE001 - the other rounds go on, and this one is reported with its logs
                stage.breach(traceback.format_exc())
            finally:
                stack.close()
            if result.breaches:
                system.write_logs()
    result.seconds = time.monotonic() - begin
    return result
