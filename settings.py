"""Settings that are stated once: a dataclass field carries its help, its range and the name of its option.

A spec is a frozen dataclass whose fields are made by `setting`. It calls `check_settings(self)` in `__post_init__`;
`actionvit.commands.spec_options` turns the same fields into command-line options.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

__all__ = ["Setting", "check_settings", "setting", "settings_of"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a field states beside its type and its default."""

    help: str
    minimum: float | None = None
    maximum: float | None = None
    above: bool = False
    """Whether the minimum itself is excluded."""
    below: bool = False
    """Whether the maximum itself is excluded."""
    option: str | None = None
    """The option's name without dashes, where it is not the field's."""
    metavar: str | None = None
    flag: bool = True
    """Whether the field appears on the command line."""


def setting(default: Any, help: str, **about: Any) -> Any:
    """Return a dataclass field with a default, a one-line help text and, in `about`, fields of `Setting`."""
    return dataclasses.field(default=default, metadata={"setting": Setting(help=help, **about)})


def settings_of(spec: Any) -> dict[str, Setting]:
    """Return the fields of a dataclass, or of an instance of it, that were made by `setting`."""
    return {f.name: f.metadata["setting"] for f in dataclasses.fields(spec) if "setting" in f.metadata}


def check_settings(spec: Any) -> None:
    """Check the range of every numeric field that states one.

    Raises
    ------
    ValueError
        `field: got 2, expected at most 1`, for the first field out of its range.
    """
    for name, about in settings_of(spec).items():
        value = getattr(spec, name)
        if value is None or isinstance(value, (bool, str)) or not isinstance(value, (int, float)):
            continue
        low, high = about.minimum, about.maximum
        too_low = low is not None and (value <= low if about.above else value < low)
        too_high = high is not None and (value >= high if about.below else value > high)
        if too_low or too_high or not math.isfinite(value):
            raise ValueError(f"{name}: got {value}, expected {_range(about)}")


def _range(about: Setting) -> str:
    parts = []
    if about.minimum is not None:
        parts.append(f"{'more than' if about.above else 'at least'} {about.minimum:g}")
    if about.maximum is not None:
        parts.append(f"{'less than' if about.below else 'at most'} {about.maximum:g}")
    return " and ".join(parts) or "a finite number"
