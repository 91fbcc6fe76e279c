"""Options and small habits that several commands share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

DEFAULTS = {"root": "data/hmdb51", "cache": "features-cache", "runs": "runs"}


def setting(name: str) -> Path:
    """Return ROOT, cache or runs: what `ACTIONVIT_*` says, else `actionvit.toml` here, else the default."""
    if value := os.environ.get(f"ACTIONVIT_{name.upper()}"):
        return Path(value)
    file = Path("actionvit.toml")
    if file.is_file():
        try:
            import tomllib
        except ModuleNotFoundError:  # Python 3.10
            import tomli as tomllib
        try:
            value = tomllib.loads(file.read_text(encoding="utf-8")).get(name)
        except tomllib.TOMLDecodeError as error:
            raise click.UsageError(f"actionvit.toml: {error}") from error
        if value is not None:
            return Path(value)
    return Path(DEFAULTS[name])


def root_argument(function: F) -> F:
    """Add ROOT, the dataset's folder or CSV file."""
    return click.argument("root", type=click.Path(path_type=Path), required=False, default=lambda: setting("root"))(
        function
    )


def cache_option(function: F) -> F:
    """Add `--cache DIR`, where feature stores live."""
    text = "Where embeddings are cached.  [default: features-cache]"
    return click.option("--cache", type=click.Path(path_type=Path), default=lambda: setting("cache"), help=text)(
        function
    )


def runs_option(function: F) -> F:
    """Add `--runs DIR`, where runs are written."""
    text = "Where runs are written.  [default: runs]"
    return click.option("--runs", type=click.Path(path_type=Path), default=lambda: setting("runs"), help=text)(function)


def json_option(function: F) -> F:
    """Add `--json`, for machines."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")(function)


def echo_json(value: object) -> None:
    """Print a value as JSON, keys in the order given."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
