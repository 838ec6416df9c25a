"""Every option of every command refuses invalid values: exit status 2, and one line that says what to write.

The test finds the commands in click's tree, and invalid values by trying some with each option, so that it covers new
options, too. An option that accepts any text must be named here, with the reason.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

import click
import pytest
from click.testing import CliRunner

from opstream.cli.app import main
from tests.support.system.processes import COMMAND, OUR_VARIABLES, environment, run

pytestmark = pytest.mark.e2e

ANY_TEXT: Final[Mapping[str, str]] = {
    "--reason": "for people to read",
    "--operation-id": "checked by the command, with the target",
    "--request-id": "any text by which a sender knows its request again",
    "--callback-secret": "a secret",
    "--subject": "any text that can be printed",
    "--note": "for people to read",
    "--token": "a secret",
    "--kek-command": "the same",
    "--token-command": "the command says what is wrong with it",
    "--auth-keys-file": "a file, of which the service says what is wrong",
    "--file": "the same, for opstream apikey",
    "--jwt-audience": "any text that the issuer puts into tokens",
    "--caller": "any text of an access record",
    "--resource-id": "an application names its resources by any text",
    "--code": "an action's author may name an error with any text",
    "--filter": "the service says what is wrong with it, and where",
    **dict.fromkeys(
        ("--jwt-tenant-claim", "--jwt-subject-claim", "--jwt-scope-claim"), "the name of a claim, any text"
    ),
    **dict.fromkeys(
        ("--store-dir", "--tls-cert", "--tls-key", "--tls-ca"), "a path on the server's machine, which it looks for"
    ),
    **dict.fromkeys(
        ("--webhooks-config", "--key", "--sign", "--checkpoint", "--export", "--erased", "--kek-file"),
        "a file, of which the command says what is wrong",
    ),
}
"""Options that accept every text when they are read, and why."""
BAD: Final = ("?", "-1", "no such thing", "9" * 30, ":", "{", str(Path(__file__)), str(Path(__file__) / "below"))
"""Values that are tried, in this order, until an option refuses one."""
WORDS: Final = ("book:read", "1", "x.parquet")
"""Values that are tried for arguments, until one is accepted."""
ADVICE: Final = re.compile(r"\): .+(?:: \S| must be |is not one of|does not match the formats? '|Recognized values)")
"""How an error continues after the option, in our words or in click's."""

NEEDED: Final = {"OPSTREAM_ACTIONS": "shop.orders", "OPSTREAM_OUT": "broker"}
"""What commands need before their other variables are looked at."""


class Case(NamedTuple):
    """An invalid value of an option."""

    path: tuple[str, ...]
    """The command, e.g. `("webhooks", "list")`."""
    option: click.Option
    value: str

    def __str__(self) -> str:
        return f"{' '.join(self.path)} {self.option.opts[0]}"


def commands(group: click.Group = main, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that is not a group, with its path."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def options(command: click.Command) -> list[click.Option]:
    """The options of a command."""
    return [one for one in command.params if isinstance(one, click.Option)]


def refused(command: click.Command, option: click.Option) -> str | None:
    """A value that an option refuses when it is read; None if it accepts all that are tried."""
    for value in BAD:
        context = click.Context(command, info_name=command.name)
        try:
            option.process_value(context, (value,) if option.multiple else value)
        except click.BadParameter:
            return value
    return None


def arguments(command: click.Command) -> list[str]:
    """A word for each required argument."""
    context = click.Context(command)
    return [word(one, context) for one in command.params if isinstance(one, click.Argument) and one.required]


def word(argument: click.Argument, context: click.Context) -> str:
    """A word that an argument accepts."""
    for tried in WORDS:
        try:
            argument.process_value(context, tried)
        except click.BadParameter:
            continue
        return tried
    raise AssertionError(f"{argument.name} takes none of {WORDS}")


CASES: Final = [
    Case(path, option, value)
    for path, command in commands()
    for option in options(command)
    if (value := refused(command, option)) is not None
]
VALUED: Final = [case for case in CASES if not case.option.is_flag]
EMPTY: Final = [
    Case(path, option, "")
    for path, command in commands()
    for option in options(command)
    if not option.is_flag and option.name != "reason"
]
"""Each option with an empty value, which only a reason may have."""
FIRST: Final = [next(group) for _, group in groupby(VALUED, key=lambda case: case.path)]
"""One option of each command."""


@pytest.fixture(autouse=True)
def environment_without_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of opstream is set."""
    for name in list(os.environ):
        if name.startswith(OUR_VARIABLES):
            monkeypatch.delenv(name)


def command_line(case: Case) -> list[str]:
    """A command line with the option first: click reads it in order, and reports one error."""
    command = dict(commands())[case.path]
    return [*case.path, f"{case.option.opts[0]}={case.value}", *arguments(command)]


def check(case: Case, status: int, out: str, err: str) -> None:
    """Check exit status 2, no stdout, and one line on stderr that names option and variable and says what to write."""
    assert (status, out) == (2, ""), err
    assert "Traceback" not in err
    (line,) = err.splitlines()
    assert line.startswith("opstream: error: ")
    assert re.search(rf" \(see '(python -m )?opstream {' '.join(case.path)} --help'\)$", line), line
    assert case.option.opts[0] in line
    assert str(case.option.envvar) in line
    assert ADVICE.search(line), line


def test_every_option_refuses_something() -> None:
    """Every option of every command refuses some value, except for those that accept any text."""
    found = {(path, option.opts[0]) for path, command in commands() for option in options(command)}
    refusing = {(case.path, case.option.opts[0]) for case in CASES}
    assert {name for _, name in found - refusing} <= set(ANY_TEXT)
    assert {name for _, name in refusing} & set(ANY_TEXT) == set()
    assert len(CASES) > 40


@pytest.mark.parametrize("case", VALUED, ids=str)
def test_a_bad_value(case: Case) -> None:
    """An invalid value on the command line is refused."""
    result = CliRunner().invoke(main, command_line(case), prog_name="opstream")
    check(case, result.exit_code, result.stdout, result.stderr)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_bad_variable(case: Case) -> None:
    """An invalid value in the environment is refused, also of a flag, which has no value on the command line."""
    command = dict(commands())[case.path]
    variables = NEEDED | {str(case.option.envvar): case.value}
    result = CliRunner().invoke(main, [*case.path, *arguments(command)], env=variables, prog_name="opstream")
    check(case, result.exit_code, result.stdout, result.stderr)


@pytest.mark.parametrize("case", EMPTY, ids=str)
def test_an_empty_value(case: Case) -> None:
    """An empty value, e.g. of a variable that a script forgot to set, is taken neither for a value nor for none."""
    result = CliRunner().invoke(main, command_line(case), prog_name="opstream")
    assert (result.exit_code, result.stdout) == (2, "")
    line = result.stderr.splitlines()[-1]
    assert case.option.opts[0] in line
    assert "it is empty: write a value, or leave the option out" in line


@pytest.mark.parametrize("case", [case for case in EMPTY if not case.option.multiple], ids=str)
def test_two_values(case: Case) -> None:
    """Two values of an option that takes one are refused: the first is not dropped silently."""
    twice = [f"{case.option.opts[0]}={value}" for value in ("1", "2")]
    result = CliRunner().invoke(main, [*case.path, *twice, *command_line(case)[2:]], prog_name="opstream")
    assert (result.exit_code, result.stdout) == (2, "")
    line = result.stderr.splitlines()[-1]
    assert case.option.opts[0] in line
    assert "it is given twice with different values: leave one out" in line


@pytest.mark.parametrize("path", [path for path, _ in commands()], ids=" ".join)
def test_an_unknown_option(path: tuple[str, ...]) -> None:
    """The error names it."""
    result = CliRunner().invoke(main, [*path, "--no-such-option"], prog_name="opstream")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--no-such-option" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("path", [path for path, command in commands() if arguments(command)], ids=" ".join)
def test_a_missing_argument(path: tuple[str, ...]) -> None:
    """The error names it as the help does."""
    result = CliRunner().invoke(main, list(path), prog_name="opstream")
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.search(r"Missing argument '[A-Z_]+(\.[a-z]+)?'", result.stderr.splitlines()[-1]), result.stderr


def test_real_processes(tmp_path: Path) -> None:
    """A real process refuses an invalid value, too, on the command line and in the environment, and leaves its working
    directory empty. One option of each command is tried."""

    def both(case: Case) -> None:
        command = dict(commands())[case.path]
        result = run(*command_line(case), cwd=tmp_path)
        check(case, result.returncode, result.stdout, result.stderr)
        variables = NEEDED | {str(case.option.envvar): case.value}
        result = run(*case.path, *arguments(command), extra=variables, cwd=tmp_path)
        check(case, result.returncode, result.stdout, result.stderr)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(both, FIRST))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("schemas", "."), ("verify", "--help")])
def test_a_full_disk(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Output that can't be printed is one line and exit status 1, of every command."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=tmp_path,
            env=environment(),
        )
    problem = "standard output can't be written to (No space left on device): make room there, then run it again"
    assert (done.returncode, done.stderr) == (1, f"opstream: error: {problem}\n")
