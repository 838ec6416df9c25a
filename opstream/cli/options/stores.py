"""The options `--index` and `--payload-store`: where the index of operations is, or that there is none, and where
payloads are; and `--max-upload`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from .option import Decorator, option
from .value_types import Size

if TYPE_CHECKING:
    from opstream_index.location import IndexLocation
    from opstream_payloads.location import StoreLocation

OFF: Final = "off"
"""The value that stands for no index."""
JETSTREAM: Final = "jetstream:"

_STORE_HELP: Final = (
    "Where inputs, results and files lie that are too large for an event: jetstream: (the broker), file:///FOLDER, "
    "which all processes reach, or s3://BUCKET/PREFIX. API, projector and runners need the same one."
)


def _parse_index(ctx: click.Context, param: click.Parameter, value: str | None) -> IndexLocation | None:
    if value is None or value == OFF:
        return None
    from opstream_index.errors import InvalidLocation
    from opstream_index.location import parse_location

    try:
        return parse_location(value)
    except InvalidLocation as error:
        raise click.BadParameter(str(error), ctx, param) from error


def _check_index(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    _parse_index(ctx, param, value)
    return value


def _parse_store(ctx: click.Context, param: click.Parameter, value: str) -> StoreLocation:
    from opstream_payloads.errors import InvalidStoreUrl
    from opstream_payloads.location import parse_store_location

    try:
        return parse_store_location(value)
    except InvalidStoreUrl as error:
        raise click.BadParameter(str(error), ctx, param) from error


def _check_store(ctx: click.Context, param: click.Parameter, value: str) -> str:
    _parse_store(ctx, param, value)
    return value


index_option: Final[Decorator[Any]] = option(
    "--index",
    variable="INDEX",
    metavar="URL|off",
    callback=_parse_index,
    help="The index of all operations, for lists: sqlite:PATH, which projector and API share on one machine, or "
    "postgresql://USER@HOST/DATABASE. The projector writes it, the API reads it. Without it there is none.",
)
local_index_option: Final[Decorator[Any]] = option(
    "--index",
    variable="INDEX",
    metavar="URL|off",
    callback=_check_index,
    help="The index of all operations, for lists: sqlite:PATH or postgresql://USER@HOST/DATABASE; off for none. "
    "Without it, the file index.db in --data-dir.",
)
payload_store_option: Final[Decorator[Any]] = option(
    "--payload-store",
    variable="PAYLOAD_STORE",
    metavar="URL",
    default=JETSTREAM,
    callback=_parse_store,
    help=_STORE_HELP,
)
local_payload_store_option: Final[Decorator[Any]] = option(
    "--payload-store",
    variable="PAYLOAD_STORE",
    metavar="URL",
    default=JETSTREAM,
    callback=_check_store,
    help=_STORE_HELP,
)
"""Of `opstream up`, which gives it to its processes, and of commands that open it later."""
max_upload_option: Final[Decorator[Any]] = option(
    "--max-upload",
    "upload_limit",
    variable="MAX_UPLOAD",
    type=Size(most="256GiB"),
    default="1GiB",
    help="The largest file that a client may upload before it submits (413 above it). It goes to the payload store.",
)
