"""Settings defined in one place: a dataclass field with its help text, its range and its public name.

A spec is a frozen dataclass whose fields are made by `setting` and that calls `check_settings(self)` in
`__post_init__`. The command line (`actionvit.commands.spec_options`) and the Python functions take the same fields
under their public names: `clip_norm` is `--max-grad-norm` there and `max_grad_norm` here. A field whose
`default_factory` is another spec nests it: its settings count among those of the outer spec.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from actionvit.errors import SettingError

S = TypeVar("S")

__all__ = ["Setting", "build_spec", "check_settings", "make_spec", "nested_specs", "setting", "settings_of"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Metadata of a field, besides its type and its default."""

    help: str
    minimum: float | None = None
    maximum: float | None = None
    above: bool = False
    """Whether the minimum itself is excluded."""
    below: bool = False
    """Whether the maximum itself is excluded."""
    name: str | None = None
    """Public name, where it differs from the field's, which is also the name on disk."""
    metavar: str | None = None


def setting(default: Any, help: str, **about: Any) -> Any:
    """Return a dataclass field with a default, a one-line help text and, in `about`, fields of `Setting`."""
    return dataclasses.field(default=default, metadata={"setting": Setting(help=help, **about)})


def nested_specs(spec: Any) -> dict[str, Any]:
    """Return the classes of the specs that a spec's fields hold, by field."""
    return {f.name: f.default_factory for f in dataclasses.fields(spec) if dataclasses.is_dataclass(f.default_factory)}


def build_spec(spec: type[S], values: Mapping[str, Any]) -> S:
    """Return a spec and its nested specs with the settings in `values`, under their fields' names."""
    own = {name: values[name] for name in settings_of(spec) if name in values}
    return spec(**own, **{name: build_spec(kind, values) for name, kind in nested_specs(spec).items()})


def _public_names(spec: Any) -> dict[str, str]:
    names = {about.name or field: field for field, about in settings_of(spec).items()}
    for kind in nested_specs(spec).values():
        names |= _public_names(kind)
    return names


def make_spec(spec: type[S], settings: Mapping[str, Any]) -> S:
    """Return a spec of settings under their public names.

    Raises
    ------
    ActionVitError
        If a setting does not exist or is out of range.
    """
    names = _public_names(spec)
    if unknown := sorted(settings.keys() - names.keys()):
        raise SettingError(f"{unknown[0]}: no such setting; expected some of {', '.join(sorted(names))}")
    try:
        return build_spec(spec, {names[name]: value for name, value in settings.items()})
    except ValueError as error:
        raise SettingError(str(error)) from error


def settings_of(spec: Any) -> dict[str, Setting]:
    """Return the fields of a dataclass, or of an instance of it, that were made by `setting`."""
    return {f.name: f.metadata["setting"] for f in dataclasses.fields(spec) if "setting" in f.metadata}


def check_settings(spec: Any) -> None:
    """Check the choice of every `Literal` field and the range of every numeric field that states one.

    Raises
    ------
    ValueError
        `max_grad_norm: got -1, expected at least 0`, for the first field out of its range.
    """
    kinds = typing.get_type_hints(type(spec))
    for name, about in settings_of(spec).items():
        value, public = getattr(spec, name), about.name or name
        choices = typing.get_args(kinds[name]) if typing.get_origin(kinds[name]) is typing.Literal else ()
        if choices and value not in choices:
            raise ValueError(f"{public}: got {value!r}, expected one of {', '.join(map(str, choices))}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        low, high = about.minimum, about.maximum
        too_low = low is not None and (value <= low if about.above else value < low)
        too_high = high is not None and (value >= high if about.below else value > high)
        if too_low or too_high or not math.isfinite(value):
            raise ValueError(f"{public}: got {value}, expected {_range(about)}")


def _range(about: Setting) -> str:
    parts = []
    if about.minimum is not None:
        parts.append(f"{'more than' if about.above else 'at least'} {about.minimum:g}")
    if about.maximum is not None:
        parts.append(f"{'less than' if about.below else 'at most'} {about.maximum:g}")
    return " and ".join(parts) or "a finite number"
