"""The credentials of the commands that call a service."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from opstream.cli.app import main

pytestmark = pytest.mark.unit

COMMANDS = [["run", "book:index"], ["status", "one"], ["cancel", "one"], ["retry", "one"], ["events", "one"]]


@pytest.mark.parametrize("words", COMMANDS, ids=[words[0] for words in COMMANDS])
def test_two_tokens_are_refused(words: list[str]) -> None:
    """And neither is shown."""
    result = CliRunner().invoke(main, [*words, "--token", "ops_a_secret", "--token-command", "echo ops_b_other"])
    assert result.exit_code == 2
    assert "exclude each other" in result.output
    assert "secret" not in result.output
    assert "other" not in result.output.replace("each other", "")


def test_a_token_among_the_options_is_warned_of() -> None:
    """From the variable it is not; and a service that can't be reached does not make the token appear."""
    words = ["status", "one", "--url", "http://127.0.0.1:9", "--timeout", "0.1", "--wait"]
    by_option = CliRunner().invoke(main, [*words, "--token", "ops_a_secret"])
    by_variable = CliRunner().invoke(main, words, env={"OPSTREAM_TOKEN": "ops_a_secret"})
    assert "every user of this machine" in by_option.stderr
    assert "every user of this machine" not in by_variable.stderr
    for result in (by_option, by_variable):
        assert result.exit_code != 0
        assert "secret" not in result.output


def test_a_command_that_gives_no_token_ends_the_command() -> None:
    """With its name, before anything is sent."""
    result = CliRunner().invoke(main, ["status", "one", "--token-command", "false"])
    assert result.exit_code == 1
    assert "token command" in result.output
