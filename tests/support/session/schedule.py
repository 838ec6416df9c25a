"""In which order the workers of pytest-xdist take the files, so that no core is idle and none is fought over.

Long files come first: one that began last would keep its worker alone at the end. Files that mostly wait, or that have
three brokers electing leaders, have a worker of their own, which runs nothing else: they hardly need a processor, and
no two clusters run beside each other.
"""

from __future__ import annotations

from typing import Final

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

WAITING: Final = (
    "tests/disaster/test_cluster.py",
    "tests/e2e/runner/test_runner_without_quorum.py",
    "tests/e2e/system/test_own_project_page.py",
    "tests/e2e/local/test_up_full_disk.py",
    "tests/e2e/house/test_diagrams.py",
    "tests/e2e/api/test_docs_page.py",
    "tests/e2e/system/test_readiness.py",
    "tests/e2e/api/test_generators.py",
    "tests/e2e/api/test_api_without_broker.py",
    "tests/disaster/test_disk.py",
    "tests/e2e/system/test_storage_limit.py",
    "tests/e2e/system/test_damaged_journal.py",
    "tests/broker/journal/runtime/test_broker_monitor.py",
    "tests/broker/journal/provisioning/test_archive.py",
    "tests/broker/journal/test_append_cluster.py",
    "tests/broker/projector/consistency/test_rebuild.py",
    "tests/broker/projector/test_projector_cluster.py",
    "tests/broker/journal/stores/test_resource_locks.py",
    "tests/broker/journal/jetstream/test_leader_lease.py",
    "tests/broker/journal/test_group_commit.py",
    "tests/broker/runner/test_pauses.py",
    "tests/broker/api/operations/test_journal_capacity.py",
    "tests/broker/api/operations/test_journal_follower.py",
    "tests/broker/journal/provisioning/test_login_check.py",
    "tests/broker/doctor/test_examination.py",
)
"""Of these, one at a time; the longest first. Together they take less time than all others do."""
LONG: Final = (
    "tests/e2e/system/test_upgrade.py",
    "tests/e2e/system/test_priorities.py",
    "tests/e2e/system/test_steps_between_versions.py",
    "tests/chaos/test_signal_points.py",
    "tests/e2e/local/test_up.py",
    "tests/e2e/system/test_kills.py",
    "tests/e2e/api/test_schemathesis.py",
    "tests/disaster/test_deletion.py",
    "tests/broker/api/operations/test_lost_operations.py",
    "tests/e2e/system/test_broker_roles.py",
    "tests/broker/projector/test_deadlines.py",
    "tests/e2e/system/test_production_page.py",
    "tests/broker/runner/test_failure_lines.py",
    "tests/broker/runner/steps/test_steps.py",
    "tests/e2e/system/test_start_times.py",
    "tests/disaster/test_clocks.py",
    "tests/chaos/test_crash_points.py",
    "tests/e2e/cli/test_output.py",
    "tests/e2e/runner/test_hostile_handlers.py",
    "tests/e2e/local/test_up_leftovers.py",
    "tests/e2e/runner/test_rolling_restart.py",
    "tests/e2e/cli/test_client_commands.py",
    "tests/e2e/local/test_up_failures.py",
    "tests/chaos/test_chaos.py",
    "tests/e2e/cli/test_services_alone.py",
    "tests/e2e/webhooks/test_webhooks.py",
    "tests/e2e/runner/test_runner_process.py",
    "tests/e2e/runner/test_runner_cancel.py",
    "tests/e2e/cli/test_broker_login.py",
    "tests/e2e/api/test_asyncapi.py",
    "tests/e2e/projector/test_rebuild.py",
    "tests/broker/history/test_lost_events.py",
    "tests/e2e/runner/test_action_logging.py",
    "tests/e2e/cli/test_exposure.py",
    "tests/e2e/api/test_api_bad_luck.py",
    "tests/e2e/cli/test_replay.py",
    "tests/e2e/local/test_demo.py",
    "tests/broker/projector/test_sweeper.py",
)
"""The others that take longest, which the number of their tests does not show; the longest first."""

_LEAST_WORKERS: Final = 3
"""With fewer, the others would take longer than those that wait."""


class FileSchedule(LoadFileScheduling):
    """Hands out whole files, as `--dist loadfile` does, in this module's order."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        super().__init__(config, log)
        self._is_begun = False
        self._waiter: WorkerController | None = None
        """The worker of files that wait; None if all workers take all files."""

    def remove_node(self, node: WorkerController) -> str | None:
        """Take back what a worker that has ended has not run; if it was the one that waits, for all workers."""
        if node is self._waiter:
            self._waiter = None
        return super().remove_node(node)

    def _assign_work_unit(self, node: WorkerController) -> None:
        if not self._is_begun:
            self._is_begun = True
            others = [file for file in self.workqueue if file not in WAITING]
            if _LEAST_WORKERS <= len(self.nodes) <= len(others) + 1 and len(others) < len(self.workqueue):
                self._waiter = self.nodes[0]
        files = self._files_for(node)
        chosen = next((file for file in (*WAITING, *LONG) if file in files), files[0])
        self.workqueue.move_to_end(chosen, last=False)
        super()._assign_work_unit(node)

    def _reschedule(self, node: WorkerController) -> None:
        if self._files_for(node):
            super()._reschedule(node)
        if not (node.shutting_down or self._files_for(node)):
            # It runs what it has. Without this a worker that has a single test waits for the one after it, for ever.
            node.shutdown()

    def _files_for(self, node: WorkerController) -> list[str]:
        """The files that a worker may get."""
        return [file for file in self.workqueue if self._waiter is None or (file in WAITING) == (node is self._waiter)]


def make_schedule(config: pytest.Config, log: Producer) -> FileSchedule | None:
    """The schedule, if files are to be handed out as a whole; otherwise None, and pytest-xdist has one."""
    return FileSchedule(config, log) if config.getvalue("dist") == "loadfile" else None
