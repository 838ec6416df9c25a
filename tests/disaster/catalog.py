"""All scenarios by name, in the order in which `make disaster` plays them."""

from __future__ import annotations

from typing import Final

from tests.disaster import clocks, cluster, damage, deletion, disk, loss, versions
from tests.disaster.scenario import Scenario

SCENARIOS: Final[dict[str, type[Scenario]]] = {
    scenario.name: scenario
    for scenario in (
        cluster.StreamLeaderKill,
        cluster.MetaLeaderKill,
        cluster.Freeze,
        cluster.Isolation,
        cluster.WipedStore,
        disk.FullDisk,
        damage.FlippedBytes,
        damage.FlippedBytesIndexed,
        damage.CutBlock,
        damage.CutBlockIndexed,
        damage.ReplicaFlip,
        damage.ReplicaFlipIndexed,
        damage.ReplicaCut,
        damage.ReplicaCutIndexed,
        deletion.TimersDeletion,
        deletion.ViewDeletion,
        deletion.CatalogDeletion,
        deletion.LocksDeletion,
        deletion.RunnerConsumersDeletion,
        deletion.ProjectorConsumersDeletion,
        deletion.WebhooksDeletion,
        deletion.DeletionOfAll,
        loss.LostStore,
        loss.LostCluster,
        clocks.FastRunner,
        clocks.SlowRunner,
        clocks.FastApi,
        clocks.SlowApi,
        clocks.FastProjector,
        clocks.SlowProjector,
        clocks.SlowBroker,
        clocks.FastBroker,
        versions.Upgrade,
        versions.Rollback,
    )
}
