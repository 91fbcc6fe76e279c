"""A Hugging Face model folder: its configuration, and what its processor does to pixels. Imports no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actionvit.errors import ActionVitError

PROCESSOR_FILES = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
_NORMALIZATION = ("image_mean", "image_std", "do_normalize")


def read_json(file: Path, name: str) -> dict[str, Any]:
    """Return the object in a JSON file of the model `name`.

    Raises
    ------
    ActionVitError
        If the file is missing or holds no object.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ActionVitError(f"weights {name}: has no {file.name}; give a Hugging Face folder or a .pyth") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ActionVitError(f"weights {name}: {file.name}: {error}; fetch it again") from error
    if not isinstance(value, dict):
        raise ActionVitError(f"weights {name}: {file.name} holds no object; fetch it again")
    return value


def read_processor(folder: Path, name: str) -> tuple[str, dict[str, Any]]:
    """Return the file and the settings of the folder's image or video processor; empty where it has none.

    transformers writes them as `preprocessor_config.json`, `video_preprocessor_config.json`, or within
    `processor_config.json` as `image_processor` or `video_processor`.

    Raises
    ------
    ActionVitError
        If a file cannot be read, or two of them normalize pixels differently.
    """
    settings: dict[str, dict[str, Any]] = {}
    for file in PROCESSOR_FILES:
        if not (folder / file).is_file():
            continue
        value = read_json(folder / file, name)
        if file == "processor_config.json":
            value = value.get("image_processor") or value.get("video_processor") or {}
        if isinstance(value, dict) and value:
            settings[file] = value
    if not settings:
        return "", {}
    first, *others = settings
    for other in others:
        if any(settings[first].get(key) != settings[other].get(key) for key in _NORMALIZATION):
            raise ActionVitError(
                f"weights {name}: {first} and {other} normalize pixels differently; remove the one that "
                "does not belong to these weights"
            )
    return first, settings[first]


def image_mean_std(
    processor: Mapping[str, Any], mean: Sequence[float], std: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of pixels in [0, 1], per channel, from a processor's settings.

    Parameters
    ----------
    processor : mapping
        Settings as `read_processor` returns them.
    mean, std : sequence of 3 floats
        The values where the settings have none.

    Raises
    ------
    ValueError
        If a value is not three numbers (standard deviations above 0), or normalization is turned off.
    """
    if processor.get("do_normalize") is False:
        raise ValueError("do_normalize is false, which no TimeSformer was trained with; take the line out")
    result = []
    for name, default in (("image_mean", mean), ("image_std", std)):
        values = default if processor.get(name) is None else processor[name]
        three = isinstance(values, (list, tuple)) and len(values) == 3 and all(type(x) in (int, float) for x in values)
        if not three or not all(math.isfinite(x) and (x > 0 or name == "image_mean") for x in values):
            raise ValueError(f"{name}: got {values!r}, expected three numbers" + ", above 0" * (name == "image_std"))
        result.append(tuple(float(x) for x in values))
    return result[0], result[1]
