"""The options of the commands that talk to a running service, each with its environment variable. See `options`.

Called by `operate` only.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from click.core import ParameterSource

from opstream_schemas.urls import parse_url

from .address_types import check_base_url
from .option import Decorator, checked, option
from .value_types import Duration

DEFAULT_URL: Final = "http://127.0.0.1:8080"


class JsonType(click.ParamType):  # type: ignore[type-arg]
    """JSON: as it stands, `@FILE` for what a file holds, or `-` (or `@-`) for standard input. Gives its bytes."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bytes:  # noqa: ANN401
        """JSON as bytes; click's usage error for what can't be read or is none."""
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


def check_timeout(ctx: click.Context, *, is_waiting: bool) -> None:
    """Refuse a `--timeout` that nothing would be limited by. In the environment it is for the commands that follow."""
    if not is_waiting and ctx.get_parameter_source("timeout") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--timeout limits how long an operation is followed: add --wait, or leave it out")


def _check_callback(text: str) -> str:
    return parse_url(text, is_http_allowed=True).text if text else ""  # whether http will do, the service knows


def _read_input(value: str) -> bytes:
    if value in {"-", "@-"}:
        return sys.stdin.buffer.read()
    return Path(value[1:]).read_bytes() if value.startswith("@") else value.encode()


operation_argument: Final[Decorator[Any]] = click.argument("operation_id", metavar="ID")
url_option: Final[Decorator[Any]] = option(
    "--url",
    variable="URL",
    default=DEFAULT_URL,
    metavar="URL",
    callback=check_base_url,
    help="The service; https://USER:PASSWORD@HOST for Basic authentication.",
)
input_option: Final[Decorator[Any]] = option(
    "--input",
    "action_input",
    variable="INPUT",
    type=JsonType(),
    default="{}",
    metavar="JSON|@FILE|-",
    help="The action's input: JSON as it stands, @FILE for a file of it, - for standard input.",
)
operation_id_option: Final[Decorator[Any]] = option(
    "--operation-id",
    variable="OPERATION_ID",
    metavar="ID",
    help="Your own id for the operation. The same command with the same id finds the operation that it made before "
    "instead of a second one. A new UUIDv7 without it.",
)
callback_option: Final[Decorator[Any]] = option(
    "--callback",
    variable="CALLBACK",
    default="",
    metavar="URL",
    callback=checked(_check_callback),
    help="Where the outcome is to be posted, signed (docs/webhooks.md), e.g. https://hooks.example.org/done. Its host "
    "must be one that the service allows.",
)
timeout_option: Final[Decorator[Any]] = option(
    "--timeout",
    variable="TIMEOUT",
    type=Duration(is_positive=True),
    help="How long to follow before leaving with exit status 124, e.g. 10m; the operation goes on. As long as it takes "
    "without it.",
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
    help="Why, for the operation's history.",
)
follow_option: Final[Decorator[Any]] = option(
    "--follow/--no-follow",
    "is_following",
    variable="FOLLOW",
    default=False,
    help="Go on until the operation has ended, or only what there is.",
)
json_option: Final[Decorator[Any]] = option(
    "--json", "is_json", variable="JSON", is_flag=True, help="One CloudEvent per line, also on a terminal."
)
force_option: Final[Decorator[Any]] = option(
    "--force", "is_forced", variable="FORCE", is_flag=True, help="Also if what it holds can't be understood."
)
