"""An option that says what to write in place of what it refuses, where click's own words do not. Used by `options`."""

from __future__ import annotations

from typing import Any

import click


class Option(click.Option):
    """A `click.Option` whose refusals end with what to write."""

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:  # noqa: ANN401 - click's own
        """The value in its type; click's usage error, with advice, for what has another."""
        try:
            return super().type_cast_value(ctx, value)
        except click.BadParameter as error:
            advice = _advice(self.type)
            if not advice:
                raise
            raise click.BadParameter(f"{error.message.removesuffix('.')}: {advice}", ctx, self) from error


def _advice(kind: click.ParamType) -> str:  # type: ignore[type-arg] # generic since click 8.5
    if isinstance(kind, click.types.IntParamType | click.types.FloatParamType):
        number = "a whole number" if isinstance(kind, click.types.IntParamType) else "a number"
        least, most = getattr(kind, "min", None), getattr(kind, "max", None)
        bounds = [f"at least {least}"] * (least is not None) + [f"at most {most}"] * (most is not None)
        return f"write {', '.join([number, *bounds])}"
    if isinstance(kind, click.Path | click.File):
        is_folder = isinstance(kind, click.Path) and not kind.file_okay
        return f"write the path of a {'folder' if is_folder else 'file'}"
    return ""
