"""`--upload`: a file that goes to the service before the submit."""

from __future__ import annotations

import mimetypes
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from opstream.cli.options.option import Decorator, option
from opstream_schemas.errors import InvalidName
from opstream_schemas.event_types.claims import MAX_UPLOADS, check_file_name, check_media_type

_UNKNOWN: Final = "application/octet-stream"


class NamedFile(msgspec.Struct, frozen=True):
    """A file to upload."""

    name: str
    path: Path
    media_type: str


class UploadType(click.ParamType):  # type: ignore[type-arg]
    """`PATH`, or `NAME=PATH`. The name comes first, since a path may have any character."""

    name = "upload"
    envvar_list_splitter = ","

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> NamedFile:  # noqa: ANN401
        """Find the file, and its media type by the end of its name.

        Raises:
            click.BadParameter: there is no such file, or the name is none.
        """
        if isinstance(value, NamedFile):
            return value
        name, equals, path = value.partition("=")
        if not equals or "/" in name:
            name, path = Path(value).name, value
        try:
            check_file_name(name)
            found = check_media_type(mimetypes.guess_type(name)[0] or _UNKNOWN)
        except InvalidName as error:
            self.fail(f"{error}: write NAME=PATH", param, ctx)
        if not Path(path).is_file():
            self.fail(f"{path!r} is no file: write PATH, or NAME=PATH", param, ctx)
        return NamedFile(name, Path(path), found)


def _check(ctx: click.Context, param: click.Parameter, value: tuple[NamedFile, ...]) -> tuple[NamedFile, ...]:
    names = [one.name for one in value]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise click.BadParameter(f"two files are named {twice[0]!r}: write NAME=PATH with another name", ctx, param)
    if len(value) > MAX_UPLOADS:
        raise click.BadParameter(f"{len(value)} files are given, {MAX_UPLOADS} are allowed: pack them", ctx, param)
    return value


upload_option: Final[Decorator[Any]] = option(
    "--upload",
    "uploads",
    variable="UPLOAD",
    type=UploadType(),
    multiple=True,
    metavar="[NAME=]PATH",
    callback=_check,
    help="A file for the action, sent before the submit; repeat it. The handler finds it by NAME, which is that of the "
    "file if it is left out.",
)
