"""The class of every option, the function that makes one, and callbacks for lists and names.

An option refuses an empty value and two different values. Its errors say what to write instead (ADR 0027).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from opstream_schemas.errors import InvalidName

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[F], F]


class Option(click.Option):
    """A `click.Option` that refuses an empty value and two different values, and whose errors say what to write.

    click takes the last of two values: with `--action a:x --action b:y`, half of the events would silently be missing.

    Args:
        takes_empty: whether an empty text is a value. For most options it is a mistake: a variable that a script has
            not set. Taken as no value, the command would do something else than intended.
        settings: of `click.Option`.
    """

    def __init__(self, *names: Any, takes_empty: bool = False, **settings: Any) -> None:  # noqa: ANN401 - click's own
        super().__init__(*names, **settings)
        self._takes_empty = takes_empty

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:  # noqa: ANN401 - click's own
        """As click does, but keep all values, for `consume_value`."""
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
        """Return the value.

        Raises:
            click.BadParameter: there are different values.
        """
        given = opts.get(self.name or "")
        if not self.multiple and isinstance(given, list):
            if any(value != given[0] for value in given):
                raise click.BadParameter("it is given twice with different values: leave one out", ctx, self)
            opts = {**opts, self.name or "": given[0]}
        return super().consume_value(ctx, opts)

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:  # noqa: ANN401 - click's own
        """Convert the value to the type of the option.

        Raises:
            click.BadParameter: it can't be converted, or is empty; the message says what to write.
        """
        is_empty = value == "" or (self.multiple and "" in value)
        if is_empty and not self._takes_empty and _is_from_command_line(ctx, self):
            raise click.BadParameter("it is empty: write a value, or leave the option out", ctx, self)
        try:
            return super().type_cast_value(ctx, value)
        except click.BadParameter as error:
            correction = _correction(self.type)
            if not correction:
                raise
            raise click.BadParameter(f"{error.message.removesuffix('.')}: {correction}", ctx, self) from error


class PathType(click.Path):
    """The type of an argument that is a path. It refuses an empty one, which `Path` takes for the working directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Convert the text to a path.

        Raises:
            click.BadParameter: it is empty, or click refuses it.
        """
        if value == "":
            self.fail(f"it is empty: {_correction(self)}", param, ctx)
        return super().convert(value, param, ctx)


def _is_from_command_line(ctx: click.Context, option: click.Option) -> bool:
    # click takes an empty variable for one that is not set.
    return ctx.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE


def _correction(kind: click.ParamType) -> str:  # type: ignore[type-arg] # generic since click 8.5
    """What to write instead of a value that the type refuses; empty where click's own message says it."""
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
    """A callback for options that may be repeated: split each value at its commas.

    Raises:
        click.BadParameter: there are values, but all their items are blank.
    """
    items = tuple(item.strip() for text in value for item in text.split(",") if item.strip())
    if value and not items:
        raise click.BadParameter("it names nothing: write a value, or several with commas between them", ctx, param)
    return items


def option(*names: str, variable: str, **settings: Any) -> Callable[[F], F]:  # noqa: ANN401 - click's own
    """As `click.option`, for an `Option`. Its variable has the prefix OPSTREAM_, and the help shows it."""
    shown = {"show_envvar": True, "show_default": True}
    return click.option(*names, cls=Option, envvar=f"OPSTREAM_{variable}", **shown, **settings)


def checked(check: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str], Any]:
    """A callback that parses the value with `check`, and turns `InvalidName` into a usage error."""

    def parse(ctx: click.Context, param: click.Parameter, value: str) -> Any:  # noqa: ANN401
        try:
            return check(value)
        except InvalidName as error:
            raise click.BadParameter(str(error), ctx, param) from error

    return parse


def checked_list(check: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], Any]:
    """As `checked`, for each item of an option that may be repeated."""

    def parse(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[Any, ...]:
        return tuple(checked(check)(ctx, param, item) for item in split_list(ctx, param, value))

    return parse
