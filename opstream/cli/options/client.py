"""Options of the commands about operations; most of these commands send requests to a running service."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from click.core import ParameterSource

from opstream_schemas.errors import InvalidName
from opstream_schemas.names import parse_labels
from opstream_schemas.urls import parse_url

from .address_types import check_base_url
from .option import Decorator, F, checked, option
from .value_types import Duration, check_time

DEFAULT_URL: Final = "http://127.0.0.1:8080"


class JsonType(click.ParamType):  # type: ignore[type-arg]
    """JSON as text, in a file (`@FILE`) or from standard input (`-` or `@-`). The value of the option is its bytes."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bytes:  # noqa: ANN401
        """Read the JSON.

        Raises:
            click.BadParameter: it can't be read, or is not JSON.
        """
        if isinstance(value, bytes):
            return value
        try:
            text = _read_input(value)
            msgspec.json.decode(text)
        except OSError as error:
            self.fail(f"{value.removeprefix('@')} can't be read ({error.strerror})", param, ctx)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            what = value.removeprefix("@") if value.startswith("@") else "it"
            self.fail(f"{what} is not JSON ({error}): write JSON, @FILE, or - for standard input", param, ctx)
        return text


class LabelType(click.ParamType):  # type: ignore[type-arg]
    """Labels as text. A value may have spaces, so its variable is split at commas only."""

    name = "label"
    envvar_list_splitter = ","


def check_timeout(ctx: click.Context, *, is_waiting: bool) -> None:
    """Check that `--timeout` limits something. Its variable may be set for other commands, which wait.

    Raises:
        click.UsageError: it is on the command line, and the command does not wait.
    """
    if not is_waiting and ctx.get_parameter_source("timeout") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--timeout limits how long an operation is followed: add --wait, or leave it out")


class TokenSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The credentials among the options of a command."""

    token: str | None = None
    token_command: str | None = None


def _warn_of_visible_token(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and ctx.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE:
        click.echo(
            "opstream: warning: every user of this machine can read a token in options: set OPSTREAM_TOKEN, or give "
            "--token-command",
            err=True,
        )
    return value


def _check_start(text: str) -> str:
    return check_time(text) if text else ""


def _check_callback(text: str) -> str:
    return parse_url(text, is_http_allowed=True).text if text else ""  # the service decides whether http is allowed


def _parse_labels(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    try:
        return parse_labels(value)
    except InvalidName as error:
        raise click.BadParameter(str(error), ctx, param) from error


def _read_input(value: str) -> bytes:
    if value in {"-", "@-"}:
        return sys.stdin.buffer.read()
    return Path(value[1:]).read_bytes() if value.startswith("@") else value.encode()


def token_options(command: F) -> F:
    """Add `--token` and `--token-command`."""
    decorated: F = _token_option(_token_command_option(command))
    return decorated


def token_of(settings: TokenSettings) -> str | Callable[[], str] | None:
    """Return the token for a client, or what gets it; None without one.

    Raises:
        click.UsageError: there are both, or the command can't be read.
    """
    if settings.token_command is None:
        return settings.token
    if settings.token is not None:
        raise click.UsageError("--token and --token-command exclude each other: leave one of them out")
    from opstream.client import InvalidRequest, TokenCommand

    try:
        return TokenCommand(settings.token_command)
    except InvalidRequest as error:
        raise click.UsageError(str(error)) from error


operation_argument: Final[Decorator[Any]] = click.argument("operation_id", metavar="ID")
url_option: Final[Decorator[Any]] = option(
    "--url",
    variable="URL",
    default=DEFAULT_URL,
    metavar="URL",
    callback=check_base_url,
    help="The service; https://USER:PASSWORD@HOST for Basic authentication.",
)
_token_option: Final[Decorator[Any]] = option(
    "--token",
    variable="TOKEN",
    metavar="TOKEN",
    callback=_warn_of_visible_token,
    help="The API key for the service, ops_…. Better in its variable: every user of this machine can read options.",
)
_token_command_option: Final[Decorator[Any]] = option(
    "--token-command",
    variable="TOKEN_COMMAND",
    metavar="COMMAND",
    help="A command that prints the token. It runs once more if the service refuses the token.",
)
input_option: Final[Decorator[Any]] = option(
    "--input",
    "action_input",
    variable="INPUT",
    type=JsonType(),
    default="{}",
    metavar="JSON|@FILE|-",
    help="The action's input: JSON as text, @FILE for a file, - for standard input.",
)
operation_id_option: Final[Decorator[Any]] = option(
    "--operation-id",
    variable="OPERATION_ID",
    metavar="ID",
    help="Your own id for the operation. The same command with the same id continues with the operation that it made "
    "before, instead of a second one. Without it a new UUIDv7.",
)
callback_option: Final[Decorator[Any]] = option(
    "--callback",
    variable="CALLBACK",
    default="",
    metavar="URL",
    callback=checked(_check_callback),
    help="The URL to which the outcome is posted, signed (docs/webhooks.md), e.g. https://hooks.example.org/done. The "
    "service must allow its host.",
)
start_at_option: Final[Decorator[Any]] = option(
    "--start-at",
    variable="START_AT",
    default="",
    metavar="TIME",
    callback=checked(_check_start),
    help="The time before which the operation does not begin, with its zone, e.g. 2026-11-24T08:00:00+01:00.",
)
start_after_option: Final[Decorator[Any]] = option(
    "--start-after",
    variable="START_AFTER",
    type=Duration(),
    help="How long from now the operation does not begin, e.g. 2h; whole seconds count.",
)
priority_option: Final[Decorator[Any]] = option(
    "--priority",
    variable="PRIORITY",
    type=click.Choice(["high", "normal", "low"]),
    help="Before which others the operation begins while runners are busy, for an action with priorities. Without it "
    "that of the action.",
)
label_option: Final[Decorator[Any]] = option(
    "--label",
    "labels",
    variable="LABEL",
    type=LabelType(),
    multiple=True,
    metavar="KEY=VALUE",
    callback=_parse_labels,
    help="A label of the operation, by which lists find it; repeat it, or write several with commas between, e.g. "
    "--label team=press.",
)
timeout_option: Final[Decorator[Any]] = option(
    "--timeout",
    variable="TIMEOUT",
    type=Duration(is_positive=True),
    help="How long to follow the operation, e.g. 10m; then the command ends with exit status 124, and the operation "
    "goes on. Without it there is no limit.",
)
detach_option: Final[Decorator[Any]] = option(
    "--detach", "is_detached", variable="DETACH", is_flag=True, help="Only submit, and print the status monitor."
)
wait_option: Final[Decorator[Any]] = option(
    "--wait", "is_waiting", variable="WAIT", is_flag=True, help="Follow the operation to its end."
)
reason_option: Final[Decorator[Any]] = option(
    "--reason",
    variable="REASON",
    default="",
    metavar="TEXT",
    takes_empty=True,
    help="The reason, for the operation's history.",
)
follow_option: Final[Decorator[Any]] = option(
    "--follow/--no-follow",
    "is_following",
    variable="FOLLOW",
    default=False,
    help="Print new events until the operation has ended, or only those that there are.",
)
json_option: Final[Decorator[Any]] = option(
    "--json", "is_json", variable="JSON", is_flag=True, help="One CloudEvent per line, also on a terminal."
)
force_option: Final[Decorator[Any]] = option(
    "--force", "is_forced", variable="FORCE", is_flag=True, help="Also if the operation's events can't be understood."
)
