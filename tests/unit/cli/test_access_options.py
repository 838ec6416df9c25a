"""An API that other machines reach is not started without a word about who may use it."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from opstream.cli.app import main
from opstream.cli.options.access import check_access

pytestmark = pytest.mark.unit


def checked(**changes: Any) -> None:
    """Check options that differ from the defaults."""
    check_access(
        {
            "host": "127.0.0.1",
            "auth": (),
            "auth_keys_file": None,
            "is_insecure": False,
            "caller_requests": "",
            "caller_open_operations": 0,
            **changes,
        }
    )


@pytest.mark.parametrize("command", ["api", "hub", "up"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "myhost", "127.0.0.1.example", "localhost.example"])
def test_another_address_than_loopback_is_refused(command: str, host: str) -> None:
    """By each command that serves HTTP; the error says what to do."""
    more = ["--actions", "shop"] if command == "up" else []
    result = CliRunner().invoke(main, [command, "--host", host, *more])
    assert result.exit_code == 2
    assert "--auth keys" in result.output
    assert "--insecure" in result.output


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST"])
def test_this_machine_needs_nothing(host: str) -> None:
    """All its own addresses."""
    checked(host=host)


@pytest.mark.parametrize("changes", [{"auth": ("keys",)}, {"is_insecure": True}])
def test_what_is_asked_for_by_name_is_done(changes: dict[str, Any]) -> None:
    """With credentials, or without any on purpose."""
    checked(host="0.0.0.0", **changes)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"auth": ("keys",), "is_insecure": True}, "leave one of them out"),
        ({"auth_keys_file": "keys.json"}, "of no use"),
        ({"caller_requests": "9/s"}, "needs --auth"),
        ({"caller_open_operations": "9"}, "needs --auth"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], problem: str) -> None:
    """Neither option is ignored in silence."""
    result = CliRunner().invoke(
        main,
        [
            "api",
            *(["--auth", "keys"] if "auth" in changes else []),
            *(["--insecure"] if "is_insecure" in changes else []),
            *(["--auth-keys-file", "keys.json"] if "auth_keys_file" in changes else []),
            *(["--caller-requests", "9/s"] if "caller_requests" in changes else []),
            *(["--caller-open-operations", "9"] if "caller_open_operations" in changes else []),
        ],
    )
    assert result.exit_code == 2
    assert problem in result.output
