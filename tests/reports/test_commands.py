"""Reports about commands: what becomes of their exit status when their output has trouble."""

from __future__ import annotations

from typing import Final

from tests.support.reports.report import Report, report

_OUTPUT: Final = "e2e/cli/test_output.py"

REPORTS: Final[list[Report]] = [
    report(
        "trailofbits/graphtage/issues/156",
        "a reader that closed the pipe early caused four tracebacks",
        f"{_OUTPUT}::test_the_exit_status",
        "e2e/cli/test_replay.py::test_a_reader_that_closes_the_pipe",
    ),
    report(
        "code42/code42cli/pull/338",
        "a name with a letter outside of cp1252 was an error as soon as the output went into a file",
        f"{_OUTPUT}::test_the_exit_status",
        f"{_OUTPUT}::test_documents_are_utf_8",
    ),
    report(
        "lelutin/scout/issues/11",
        "a command that worked on a terminal ended with a traceback in a pipe",
        f"{_OUTPUT}::test_the_exit_status",
    ),
    report(
        "pypa/pip/pull/13927",
        "a broken stdout made the command wait for ever to report it",
        f"{_OUTPUT}::test_the_exit_status",
    ),
]
