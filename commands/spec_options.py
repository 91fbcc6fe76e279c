"""Command-line options made from the settings of a spec: name, type, default, range and help are defined there once."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import click

from actionvit.commands.options import F, FiniteRange, packed, several, together
from actionvit.settings import Setting, settings_of


def spec_options(spec: type, *names: str) -> Callable[[F], F]:
    """Return a decorator that adds an option for each field of a spec, or for the fields in `names`.

    The options' values arrive under the fields' names.
    """
    kinds = typing.get_type_hints(spec)
    fields = {field.name: field for field in dataclasses.fields(spec)}
    abouts = settings_of(spec)
    return together(*(_option(fields[name], kinds[name], abouts[name]) for name in names or abouts))


def spec_object(name: str, spec: type, *fields: str) -> Callable[[F], F]:
    """Return a decorator that adds options for fields of a spec and passes `name=spec(...)` to the command."""
    names = fields or tuple(settings_of(spec))
    return packed(name, spec, names, spec_options(spec, *names))


def _option(field: dataclasses.Field[Any], kind: Any, about: Setting) -> Callable[[F], F]:
    flag = f"--{(about.name or field.name).replace('_', '-')}"
    optional = typing.get_origin(kind) in (types.UnionType, typing.Union) and type(None) in typing.get_args(kind)
    if optional:
        (kind,) = (part for part in typing.get_args(kind) if part is not type(None))
    more: dict[str, Any] = {"help": about.help, "metavar": about.metavar}
    if typing.get_origin(kind) is tuple:
        return several(flag, field.name, **more)
    if typing.get_origin(kind) is Mapping:
        return click.option(flag, field.name, multiple=True, callback=parse_grid, **more)
    if kind is bool:
        both = flag if field.default is False else f"{flag}/--no-{flag[2:]}"
        shown = field.default is True
        return click.option(both, field.name, is_flag=True, default=field.default, show_default=shown, help=about.help)
    if field.default is not dataclasses.MISSING and field.default is not None:
        more |= {"default": field.default, "show_default": True}
    bounds: dict[str, Any] = {
        "min": about.minimum,
        "max": about.maximum,
        "min_open": about.above,
        "max_open": about.below,
    }
    if typing.get_origin(kind) is typing.Literal:
        more["type"] = click.Choice(typing.get_args(kind))
    elif kind is int:
        more["type"] = click.IntRange(**bounds)
    elif kind is float:
        more["type"] = FiniteRange(**bounds)
    return click.option(flag, field.name, **more)


def parse_grid(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> dict[str, tuple[Any, ...]]:
    """Parse `C=0.01,0.1` or `standardize=true,false` into numbers and truth values where possible."""
    grid: dict[str, tuple[Any, ...]] = {}
    for text in given:
        name, equals, values = text.partition("=")
        if not (name and equals and values):
            raise click.BadParameter(f"got {text!r}, expected NAME=VALUE or NAME=VALUE,VALUE, for example C=0.01,0.1")
        if name in grid:
            raise click.BadParameter(f"got {name} twice, expected all its values together: {name}=VALUE,VALUE")
        grid[name] = tuple(_value(value.strip()) for value in values.split(","))
    return grid


def _value(text: str) -> int | float | str | bool:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
