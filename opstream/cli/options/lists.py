"""Options that take a list: be it repeated, or with commas between the items. Called by the modules of options."""

from __future__ import annotations

import click


def split_list(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """The items, without those that are blank; click's usage error if something was given and none is left."""
    items = tuple(item.strip() for each in value for item in each.split(",") if item.strip())
    if value and not items:
        raise click.BadParameter("it names nothing: write a value, or several with commas between them", ctx, param)
    return items
