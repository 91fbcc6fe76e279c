"""Command-line options made from the settings of a spec: name, type, default, range and help are defined there once."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click

from actionvit.commands.options import F, FiniteRange, packed, several, several_numbers
from actionvit.settings import Setting, build_spec, nested_specs, settings_of


def spec_object(name: str, spec: type, *fields: str) -> Callable[[F], F]:
    """Return a decorator that adds options for fields of a spec and passes the spec to the command as `name`.

    By default it adds all fields, also those of nested specs.
    """

    def build(**values: Any) -> Any:
        return build_spec(spec, values)

    owners = [(spec, field) for field in fields] or list(_all_fields(spec))
    options = (spec_option(owner, field) for owner, field in owners)
    return packed(name, build, [field for _, field in owners], *options)


def _all_fields(spec: type) -> Iterator[tuple[type, str]]:
    """Yield the settings of a spec and of its nested specs, as the class that defines each and the field's name."""
    yield from ((spec, field) for field in settings_of(spec))
    for kind in nested_specs(spec).values():
        yield from _all_fields(kind)


def spec_option(spec: type, name: str, **changes: Any) -> Callable[[F], F]:
    """Return the option for a field of a spec; `changes` are keywords of `click.option` that replace the field's."""
    field, kind, about = _field(spec, name)
    flag = _flag(field, about)
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
    return click.option(flag, field.name, **more | changes)


def spec_values(spec: type, name: str, value: str, default: Sequence[Any] = ()) -> Callable[[F], F]:
    """Return the option for several values of a field, which arrive as `value`; by default none."""
    field, kind, about = _field(spec, name)
    text, _, note = about.help.partition("  [default: ")
    given = ", ".join(map(str, default)) or note.rstrip("]") or field.default
    more: dict[str, Any] = {"default": tuple(map(str, default)), "help": f"{text}  [default: {given}; repeatable]"}
    if kind is int:
        return several_numbers(_flag(field, about), value, minimum=about.minimum or 0, **more)
    return several(_flag(field, about), value, choices=typing.get_args(kind), **more)


def _field(spec: type, name: str) -> tuple[dataclasses.Field[Any], Any, Setting]:
    """Return a field of a spec, its type without None, and its metadata."""
    (field,) = (field for field in dataclasses.fields(spec) if field.name == name)
    kind = typing.get_type_hints(spec)[name]
    if typing.get_origin(kind) in (types.UnionType, typing.Union) and type(None) in typing.get_args(kind):
        (kind,) = (part for part in typing.get_args(kind) if part is not type(None))
    return field, kind, settings_of(spec)[name]


def _flag(field: dataclasses.Field[Any], about: Setting) -> str:
    return f"--{(about.name or field.name).replace('_', '-')}"


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
