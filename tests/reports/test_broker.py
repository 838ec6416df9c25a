"""Reports about the broker, clients of it and clocks: damage, full disks, lost copies, stalled consumers."""

from __future__ import annotations

from typing import Final

from tests.support.reports.report import Report, report

_PULL: Final = "broker/journal/jetstream/test_pull_consumer.py"
_CLUSTER: Final = "broker/journal/test_append_cluster.py"
_MONITOR: Final = "broker/journal/runtime/test_broker_monitor.py"
_SETBACK: Final = "broker/projector/consistency/test_setback.py"
_OLD: Final = "broker/journal/provisioning/test_old_broker.py"

REPORTS: Final[list[Report]] = [
    report(
        "nats-io/nats-server/issues/5703",
        "a stream could not be recovered after the machine was reset, and had to be deleted",
        f"{_SETBACK}::test_verify_and_rebuild",
    ),
    report(
        "nats-io/nats-server/pull/7123",
        "a stream with a removed block was taken for complete, because of an index that still had it",
        f"{_SETBACK}::test_verify_and_rebuild",
    ),
    report(
        "nats-io/nats-server/issues/5382",
        "a stream was recovered and then deleted as an orphan, after its disk had been full",
        "e2e/local/test_up_full_disk.py::test_a_full_disk_that_is_freed",
    ),
    report(
        "nats-io/nats-server/issues/7654",
        "nothing but the absence of messages said that the file storage was used up",
        f"{_MONITOR}::test_a_full_disk",
        "broker/api/http/test_errors.py::test_a_full_journal_refuses_submits",
    ),
    report(
        "nats-io/nats-server/issues/2673",
        "a stream had no leader, and nothing said what to do",
        f"{_MONITOR}::test_no_quorum",
    ),
    report(
        "nats-io/nats-server/pull/8488",
        "a replicated consumer stayed stuck after a change of its leader",
        f"{_OLD}::test_the_first_connect",
        f"{_OLD}::test_an_old_leader",
    ),
    report(
        "nats-io/nats-server/pull/5504",
        "quick changes of the leader made a stream source stall, or copy messages twice",
        "broker/projector/test_sweeper.py::test_a_lost_retry",
        "broker/projector/test_sweeper.py::test_a_doubled_wake_up",
    ),
    report(
        "nats-io/nats-server/pull/8323",
        "a source stopped to copy for 22 hours without a change to its stream",
        "broker/projector/test_sweeper.py::test_a_lost_deadline",
    ),
    report(
        "nats-io/nats-server/issues/4320",
        "two publishes with the same expected sequence were both accepted by a cluster",
        f"{_CLUSTER}::test_racing_writers",
        f"{_CLUSTER}::test_racing_first_events",
    ),
    report(
        "nats-io/nats-server/issues/5526",
        "updating a stream with its own settings deleted messages that waited after a nak",
        f"{_OLD}::test_no_consumer_is_created_again",
    ),
    report(
        "nats-io/nats.py/issues/504",
        "a pull subscription got no messages any more after a restart of the server",
        f"{_PULL}::test_a_broker_restart",
    ),
    report(
        "nats-io/nats.swift/issues/120",
        "a fetch waited for ever for a pull request that was lost",
        f"{_PULL}::test_a_pull_that_got_lost",
        f"{_PULL}::test_a_broker_that_hung",
    ),
    report(
        "nats-io/nats.rs/issues/557",
        "a consumer that was gone after a reconnect was noticed by nothing",
        f"{_PULL}::test_a_deleted_consumer",
    ),
    report(
        "ag2ai/faststream/issues/1046",
        "a message that its handler refuses was delivered again for ever",
        "broker/events/test_subscribe_trouble.py::test_poison_is_parked_and_brought_back",
    ),
    report(
        "ag2ai/faststream/issues/1233",
        "a message that was put back was not handled after a restart",
        "broker/events/test_subscribe.py::test_a_failing_handler_is_retried",
    ),
    report(
        "apache/dolphinscheduler/issues/12170",
        "a worker whose clock was behind delayed every task by the difference",
        f"{_MONITOR}::test_a_wrong_clock",
        "broker/projector/test_deadlines.py::test_a_slow_clock",
    ),
    report(
        "celery/celery/issues/2166",
        "machines with equal clocks were warned about drift",
        f"{_MONITOR}::test_clocks_that_are_near",
        f"{_MONITOR}::test_a_slow_answer_is_no_skew",
    ),
    report(
        "mumax/3/issues/42",
        "a watchdog killed jobs too early, because it compared another machine's time with its own",
        "broker/projector/test_deadlines.py::test_a_scanner_with_a_wrong_clock",
    ),
]
