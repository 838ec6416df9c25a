"""An option that says what to write in place of what it refuses, where click's own words do not. Used by `options`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from opstream_schemas.errors import InvalidName

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[F], F]


class Option(click.Option):
    """A `click.Option` whose refusals end with what to write, and which refuses to be given nothing, or two values.

    click takes the last of two. Of `--action a:x --action b:y`, half would be left out, and nobody would notice.

    Args:
        takes_empty: whether an empty text means something. Elsewhere it comes from a variable that a script has not
            set, and an option that is as good as left out would do something else than was meant.
        settings: click's own.
    """

    def __init__(self, *names: Any, takes_empty: bool = False, **settings: Any) -> None:  # noqa: ANN401 - click's own
        super().__init__(*names, **settings)
        self._takes_empty = takes_empty

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:  # noqa: ANN401 - click's own
        """As click does, but every value is kept until `consume_value`."""
        if self.multiple or self.count:
            super().add_to_parser(parser, ctx)
            return
        if not self.is_flag:
            parser.add_option(obj=self, opts=self.opts, dest=self.name, action="append", nargs=self.nargs)
            return
        for names, meaning in ((self.opts, True), (self.secondary_opts, False)):
            if names:
                parser.add_option(obj=self, opts=names, dest=self.name, action="append_const", const=meaning)

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """The one value; click's usage error for several that differ."""
        given = opts.get(self.name or "")
        if not self.multiple and isinstance(given, list):
            if any(one != given[0] for one in given):
                raise click.BadParameter("it is given twice, and not the same: leave one out", ctx, self)
            opts = {**opts, self.name or "": given[0]}
        return super().consume_value(ctx, opts)

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:  # noqa: ANN401 - click's own
        """The value in its type; click's usage error, with advice, for what has another."""
        if (
            not self._takes_empty
            and _is_from_command_line(ctx, self)
            and (value == "" or (self.multiple and "" in value))
        ):
            raise click.BadParameter("it is empty: write a value, or leave the option out", ctx, self)
        try:
            return super().type_cast_value(ctx, value)
        except click.BadParameter as error:
            advice = _correction(self.type)
            if not advice:
                raise
            raise click.BadParameter(f"{error.message.removesuffix('.')}: {advice}", ctx, self) from error


class PathType(click.Path):
    """The type of an argument that is a path. An empty one would be taken for the working directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """The path; click's usage error for none, and for what click refuses."""
        if value == "":
            self.fail(f"it is empty: {_correction(self)}", param, ctx)
        return super().convert(value, param, ctx)


def _is_from_command_line(ctx: click.Context, option: click.Option) -> bool:
    # An empty variable is one that is not set, says click.
    return ctx.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE


def _correction(kind: click.ParamType) -> str:  # type: ignore[type-arg] # generic since click 8.5
    if isinstance(kind, click.types.IntParamType | click.types.FloatParamType):
        number = "a whole number" if isinstance(kind, click.types.IntParamType) else "a number"
        least, most = getattr(kind, "min", None), getattr(kind, "max", None)
        bounds = [f"at least {least}"] * (least is not None) + [f"at most {most}"] * (most is not None)
        return f"write {', '.join([number, *bounds])}"
    if isinstance(kind, click.Path | click.File):
        is_folder = isinstance(kind, click.Path) and not kind.file_okay
        return f"write the path of a {'folder' if is_folder else 'file'}"
    return ""


def split_list(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """The items, without those that are blank; click's usage error if something was given and none is left."""
    items = tuple(item.strip() for each in value for item in each.split(",") if item.strip())
    if value and not items:
        raise click.BadParameter("it names nothing: write a value, or several with commas between them", ctx, param)
    return items


def option(*names: str, variable: str, **settings: Any) -> Callable[[F], F]:  # noqa: ANN401 - click's own
    """`click.option` with its environment variable and default shown in the help, and advice in its refusals."""
    shown = {"show_envvar": True, "show_default": True}
    return click.option(*names, cls=Option, envvar=f"OPSTREAM_{variable}", **shown, **settings)


def checked(check: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str], Any]:
    """A callback for an option whose value `check` parses; an empty one is none."""

    def parse(ctx: click.Context, param: click.Parameter, value: str) -> Any:  # noqa: ANN401
        try:
            return check(value)
        except InvalidName as error:
            raise click.BadParameter(str(error), ctx, param) from error

    return parse
