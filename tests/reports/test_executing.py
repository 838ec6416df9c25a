"""Reports about workers: handlers that end them, attempts that are lost or run twice, retries, cancellation."""

from __future__ import annotations

from typing import Final

from tests.support.reports.report import Report, report

_HOSTILE: Final = "e2e/runner/test_hostile_handlers.py"
_EXCEPTIONS: Final = "unit/runner/handler/test_hostile_exceptions.py"
_INVOCATION: Final = "unit/runner/handler/test_invocation_results.py"
_PROCESS: Final = "e2e/runner/test_runner_process.py"
_LEASE: Final = "broker/runner/attempt/test_lease.py"
_RETRIES: Final = "broker/runner/attempt/test_retries.py"
_DRAIN: Final = "broker/runner/test_drain.py"
_STOP: Final = "broker/runner/test_stop.py"
_ISOLATED: Final = "broker/runner/handler/test_isolated.py"

REPORTS: Final[list[Report]] = [
    report(
        "celery/celery/issues/457",
        "a KeyboardInterrupt in a task ended the worker, and the task had neither state nor result",
        f"{_HOSTILE}::test_an_exit_in_a_task",
    ),
    report(
        "python/cpython/issues/102572",
        "a KeyboardInterrupt in a task of a TaskGroup stopped the event loop",
        f"{_HOSTILE}::test_an_exit_in_a_task",
    ),
    report(
        "python/cpython/issues/93122",
        "a SystemExit below gather() came out of the loop beside the coroutine that waits for it",
        f"{_HOSTILE}::test_an_exit_in_a_task",
    ),
    report(
        "celery/celery/issues/1018",
        "an exit() in an imported module of tasks ended the worker without a reason",
        "unit/runner/authoring/test_action_modules.py::test_what_is_wrong",
    ),
    report(
        "python/cpython/issues/94454",
        "a signal for a forked child came to the signal handler of the parent's loop",
        f"{_HOSTILE}::test_a_handler_that_forks",
    ),
    report(
        "fastapi/fastapi/issues/1487",
        "the server shut down when a request's handler terminated a process of its own",
        f"{_HOSTILE}::test_a_handler_that_forks",
    ),
    report(
        "svinota/pyroute2/issues/870",
        "a library that forks made the application run its own SIGTERM handler",
        f"{_HOSTILE}::test_a_handler_that_forks",
    ),
    report(
        "dask/distributed/issues/1381",
        "a logging configuration that was loaded later silenced the loggers that existed",
        "e2e/runner/test_action_logging.py::test_our_lines_appear",
    ),
    report(
        "eventbrite/pysoa/pull/71",
        "configuring logging at the start of a server disabled the loggers of imported modules",
        "e2e/runner/test_action_logging.py::test_our_lines_appear",
    ),
    report(
        "griptape-ai/griptape-nodes-engine/issues/158",
        "a long-running node kept heartbeats from being answered",
        f"{_HOSTILE}::test_a_handler_that_blocks_the_loop",
    ),
    report(
        "celery/celery/issues/2599",
        "a task with a far time to start was delivered and run several times",
        f"{_RETRIES}::test_a_wake_up_that_is_delivered_twice",
    ),
    report(
        "celery/celery/issues/3270",
        "each worker received the same delayed task once the visibility timeout was over",
        f"{_LEASE}::test_a_long_action_keeps_its_lease",
    ),
    report(
        "celery/celery/issues/5306",
        "with late acknowledgement a long task ran again while it was still running",
        f"{_LEASE}::test_a_long_action_keeps_its_lease",
        f"{_LEASE}::test_an_outcome_that_comes_too_late",
    ),
    report(
        "celery/celery/issues/6185",
        "an exception that can't be pickled sent the worker into a loop of crashes",
        f"{_EXCEPTIONS}::test_an_attempt_ends",
    ),
    report(
        "celery/celery/issues/2943",
        "an exception with an argument that can't be unpickled killed the main process",
        f"{_EXCEPTIONS}::test_an_attempt_ends",
    ),
    report(
        "celery/celery/issues/2294",
        "the daemon crashed on a message of its own worker",
        "unit/runner/handler/test_child_process.py::test_a_failure_of_any_text",
        f"{_ISOLATED}::test_an_invalid_message",
    ),
    report(
        "python/cpython/issues/128049",
        "an exception group whose split() returns no pair crashed the interpreter",
        f"{_EXCEPTIONS}::test_a_group_is_split_without_its_methods",
    ),
    report(
        "python/cpython/issues/100317",
        "a coroutine function below functools.wraps is not known as one any more",
        "unit/runner/authoring/test_action.py::test_whatever_can_be_called_is_a_handler",
    ),
    report(
        "mahmoud/boltons/issues/194",
        "a decorator hid that the function has to be awaited",
        "unit/runner/authoring/test_action.py::test_whatever_can_be_called_is_a_handler",
    ),
    report(
        "google/turbinia/issues/153",
        "tasks died because their results could not be serialized",
        f"{_INVOCATION}::test_a_result_that_no_event_could_hold",
    ),
    report(
        "Bogdanp/dramatiq/issues/376",
        "a killed worker process shut all workers down, with status 0, so nothing started them again",
        "e2e/local/test_up.py::test_a_child_that_dies",
    ),
    report(
        "Bogdanp/dramatiq/issues/505",
        "a segmentation fault in one task ended all worker processes",
        "e2e/runner/test_runner_cancel.py::test_a_crash",
    ),
    report(
        "Bogdanp/dramatiq/issues/159",
        "a worker that shut down gracefully sent no more heartbeats, and another one ran its task too",
        f"{_DRAIN}::test_the_lease_is_kept",
    ),
    report(
        "Bogdanp/dramatiq/issues/618",
        "a shutdown counted as a failure, and was retried",
        f"{_STOP}::test_stops_do_not_count",
    ),
    report(
        "rq/rq/issues/507",
        "a job whose worker got SIGTERM stayed in the registry of running jobs for ever",
        f"{_STOP}::test_another_runner_continues_the_operation",
    ),
    report(
        "python-arq/arq/issues/190",
        "a job that was canceled by a shutdown took the worker down and was not tried again",
        f"{_STOP}::test_another_runner_continues_the_operation",
    ),
    report(
        "coleifer/huey/issues/571",
        "a task whose consumer was terminated was lost",
        f"{_PROCESS}::test_a_killed_runner",
    ),
    report(
        "coleifer/huey/issues/733",
        "a task that killed its worker left no trace of its state",
        f"{_PROCESS}::test_an_action_that_takes_its_runner_down",
    ),
    report(
        "celery/celery/issues/1628",
        "a task whose worker was killed for its memory was acknowledged, and so was lost",
        "broker/runner/test_runner.py::test_the_message_is_acknowledged_after_the_outcome",
    ),
    report(
        "celery/celery/issues/7924",
        "running and reserved tasks were gone after kill -9",
        "e2e/system/test_kills.py::test_the_runner_while_actions_run",
    ),
    report(
        "celery/kombu/issues/533",
        "tasks with a time to start were lost when the workers that held them restarted",
        f"{_RETRIES}::test_another_runner_makes_the_next_attempt",
        "broker/journal/stores/test_timers.py::test_a_wake_survives_the_broker",
    ),
    report(
        "celery/celery/issues/3778",
        "a worker with many delayed tasks took no new ones",
        f"{_RETRIES}::test_many_operations_that_fail",
    ),
    report(
        "celery/celery/issues/2541",
        "delayed tasks stayed with one worker although another one was free",
        f"{_RETRIES}::test_a_waiting_operation_takes_no_slot",
    ),
    report(
        "temporalio/sdk-python/issues/1048",
        "an activity in a process of its own could not be canceled, and kept the worker from stopping",
        f"{_ISOLATED}::test_a_cancellation_that_kills",
    ),
    report(
        "temporalio/sdk-python/issues/700",
        "an activity learned of its cancellation only at its next heartbeat",
        "broker/runner/attempt/test_cancel.py::test_a_notification_causes_a_read_at_once",
    ),
    report(
        "Netflix/genie/pull/158",
        "killing a job left its grandchildren running",
        f"{_ISOLATED}::test_a_cancellation_takes_all_of_the_group",
    ),
    report(
        "krallin/tini/issues/236",
        "what a killed process had started went to the next parent and lived on",
        f"{_ISOLATED}::test_what_has_left_the_group_does_not_survive_the_end",
        f"{_ISOLATED}::test_what_has_left_the_group_does_not_survive_a_cancel",
    ),
    report(
        "apache/airflow/issues/12396",
        "a task was marked as failed by the scheduler after it had succeeded",
        "property/schemas/test_decisions.py::test_a_terminal_state_is_never_left",
    ),
    report(
        "apache/airflow/issues/7927",
        "a task whose worker and scheduler died stayed running for ever",
        "e2e/system/test_kills_at_random.py::test_everything_at_random",
    ),
    report(
        "apache/airflow/issues/16023",
        "tasks that were running were taken for orphans, and killed",
        "e2e/runner/test_rolling_restart.py::test_a_rolling_restart",
    ),
    report(
        "celery/celery/issues/2700",
        "SIGTERM ended the running task although a graceful stop was documented",
        f"{_DRAIN}::test_a_running_attempt_ends_by_itself",
    ),
    report(
        "celery/celery/issues/8417",
        "a task could not be canceled any more once its worker was shutting down",
        f"{_DRAIN}::test_a_cancellation_during_the_drain",
    ),
    report(
        "celery/celery/issues/854",
        "messages of a task that had been removed from the code were discarded with an error",
        "broker/api/queues/test_waiting_reasons.py::test_an_operation_without_a_runner",
        "broker/runner/dispatch/test_versions.py::test_a_request_that_no_runner_takes",
    ),
    report(
        "coleifer/huey/issues/765",
        "a queued task of an earlier version of the code made the consumer fail to read its queue",
        "broker/runner/dispatch/test_versions.py::test_an_upgrade_while_requests_wait",
    ),
]
