"""Command-line options made from the settings of a spec: name, type, default, range and help are stated there once."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import click

from actionvit.commands.options import F, FiniteRange, several, together
from actionvit.settings import Setting, settings_of


def spec_options(spec: type, *names: str) -> Callable[[F], F]:
    """Return a decorator that adds an option for each field of a spec, or for the fields in `names`.

    The options' values arrive under the fields' names; `values_of` picks them.
    """
    kinds = typing.get_type_hints(spec)
    fields = {field.name: field for field in dataclasses.fields(spec)}
    abouts = settings_of(spec)
    return together(*(_option(fields[name], kinds[name], abouts[name]) for name in names or abouts))


def values_of(spec: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a spec's fields among those of a command's options."""
    return {name: options[name] for name in settings_of(spec) if name in options}


def _option(field: dataclasses.Field[Any], kind: Any, about: Setting) -> Callable[[F], F]:
    flag = f"--{(about.name or field.name).replace('_', '-')}"
    optional = isinstance(kind, types.UnionType) and type(None) in typing.get_args(kind)
    if optional:
        (kind,) = (part for part in typing.get_args(kind) if part is not type(None))
    more: dict[str, Any] = {"help": about.help, "metavar": about.metavar}
    if typing.get_origin(kind) is tuple:
        return several(flag, field.name, **more)
    if kind is bool:
        return click.option(flag, field.name, is_flag=True, default=field.default, help=about.help)
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
