"""The option `--index`: where the index of operations is, or that there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from .option import Decorator, option

if TYPE_CHECKING:
    from opstream_index.location import IndexLocation

OFF: Final = "off"
"""The value that stands for no index."""


def _parse(ctx: click.Context, param: click.Parameter, value: str | None) -> IndexLocation | None:
    if value is None or value == OFF:
        return None
    from opstream_index.errors import InvalidLocation
    from opstream_index.location import parse_location

    try:
        return parse_location(value)
    except InvalidLocation as error:
        raise click.BadParameter(str(error), ctx, param) from error


def _check(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    _parse(ctx, param, value)
    return value


index_option: Final[Decorator[Any]] = option(
    "--index",
    variable="INDEX",
    metavar="URL|off",
    callback=_parse,
    help="The index of all operations, for lists: sqlite:PATH, which projector and API share on one machine, or "
    "postgresql://USER@HOST/DATABASE. The projector writes it, the API reads it. Without it there is none.",
)
local_index_option: Final[Decorator[Any]] = option(
    "--index",
    variable="INDEX",
    metavar="URL|off",
    callback=_check,
    help="The index of all operations, for lists: sqlite:PATH or postgresql://USER@HOST/DATABASE; off for none. "
    "Without it, the file index.db in --data-dir.",
)
