"""Where an encoder's weights lie and what they are, without loading them; loading them, all or nothing."""

from __future__ import annotations

import hashlib
import json
import math
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionvit.errors import ActionVitError
from actionvit.features.fingerprint import file_digest
from actionvit.features.timesformer.config import TimeSformerConfig
from actionvit.features.timesformer.state_dict import check_tensors, from_original, from_transformers
from actionvit.features.timesformer.tiny import TINY, TINY_FILE, untrained_weights
from actionvit.features.timesformer.variants import BUILT_IN, UNTRAINED, VARIANTS, variant_named

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["VARIANTS", "TimeSformerConfig", "Weights", "find_weights"]

MEAN, STD = (0.45,) * 3, (0.225,) * 3  # what TimeSformer was trained with; not ImageNet's
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
PICKLED = (".pyth", ".pth", ".pt", ".bin")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Weights that were found and digested, and what a model of them needs to know."""

    source: str
    """What the user or the variant named: a folder, a file, a hub id, `built-in`, `untrained`."""
    config: TimeSformerConfig
    digest: str
    """sha256 of the weights' bytes: of the file, or of the untrained arrays."""
    file: Path | None = None
    """None for the untrained weights."""
    mean: tuple[float, ...] = MEAN
    """Of the pixels in [0, 1], by channel."""
    std: tuple[float, ...] = STD
    labels: tuple[str, ...] = ()
    """Class names of the classifier that came along, if it did and they are known."""
    licence: str = ""
    notes: tuple[str, ...] = field(default=())

    def load(self) -> dict[str, Tensor]:
        """Return the tensors in float32 by our names (`names.tensor_shapes`), and `head.*` where there is a classifier.

        Raises
        ------
        ActionVitError
            If the file cannot be read, or a tensor is missing, unexpected or of another shape.
        """
        import torch

        if self.file is None:
            return {name: torch.from_numpy(array) for name, array in untrained_weights().items()}
        tensors, unknown = _translated(_read_tensors(self.file))
        check_tensors({name: tuple(t.shape) for name, t in tensors.items()}, unknown, self.config, self.source)
        return {name: tensor.float() for name, tensor in tensors.items()}


def find_weights(variant: str, source: str | Path | None = None) -> Weights:
    """Find an encoder's weights, read their configuration and digest them; torch is imported for a `.pyth` only.

    Parameters
    ----------
    variant : str
        One of `VARIANTS`; names the weights where `source` does not.
    source : str or Path, optional
        A Hugging Face folder (`config.json` with `model.safetensors` or `pytorch_model.bin`), an original `.pyth`
        file, a hub id (`owner/name`, taken from the local cache if it is there), `built-in` (what
        `tiny` has), or `untrained` (random numbers in its shape, to compare with).

    Raises
    ------
    ActionVitError
        If nothing is there, or what is there is no TimeSformer; with the remedy.
    """
    chosen = variant_named(variant)
    name = str(source if source is not None else chosen.weights or "")
    if not name:
        raise ActionVitError(
            f"variant {variant}: no published weights are on the hub; give --weights FOLDER, FILE.pyth or a hub id"
        )
    if name == BUILT_IN:
        digest, notes = file_digest(TINY_FILE), ("trained on drawn motions, on no real video",)
        return Weights(source=name, config=TINY, digest=digest, file=TINY_FILE, licence="MIT", notes=notes)
    if name == UNTRAINED:
        return Weights(
            source=name, config=TINY, digest=_untrained_digest(), licence="MIT", notes=("random, from a fixed seed",)
        )
    path = Path(name).expanduser()
    if path.is_dir():
        return _from_folder(path, name)
    if path.is_file():
        return _from_file(path, name)
    if isinstance(source, Path) or not _HUB_ID.fullmatch(name):
        raise ActionVitError(f"weights {name}: no such folder or file; give a Hugging Face folder, a .pyth or a hub id")
    from actionvit.features.timesformer.hub import fetch

    return _from_folder(fetch(name), name)


def _untrained_digest() -> str:
    digest = hashlib.sha256()
    for name, array in sorted(untrained_weights().items()):
        digest.update(f"{name}{array.shape}".encode())
        digest.update(array.astype("<f4").tobytes())
    return digest.hexdigest()


def _from_folder(folder: Path, name: str) -> Weights:
    config = _json(folder / "config.json", name)
    file = next((folder / each for each in WEIGHT_FILES if (folder / each).is_file()), None)
    if file is None:
        raise ActionVitError(f"weights {name}: has neither {' nor '.join(WEIGHT_FILES)} (shards are not supported)")
    processor = folder / "preprocessor_config.json"
    pixels = _json(processor, name) if processor.is_file() else {}
    shape, labels = _shape(config, name), config.get("id2label") or {}
    try:
        mean, std = image_mean_std(pixels, MEAN, STD)
        names = tuple(str(labels[key]) for key in sorted(labels, key=int))
    except (TypeError, ValueError, AttributeError) as error:
        raise ActionVitError(f"weights {name}: {processor.name} or the labels in config.json: {error}") from error
    return Weights(
        source=name,
        config=shape,
        digest=file_digest(file),
        file=file,
        mean=mean,
        std=std,
        labels=names,
        licence=str(config.get("license") or ("CC BY-NC 4.0" if name.startswith("facebook/") else "")),
    )


def _from_file(file: Path, name: str) -> Weights:
    if file.suffix not in PICKLED:
        raise ActionVitError(f"weights {name}: got {file.suffix!r}, expected a .pyth file, or the folder around it")
    tensors, _ = _translated(_read_tensors(file, data=False))
    try:
        # The original code fixes all else: ViT-Base, patch 16, a square grid, eps 1e-6.
        depth = 1 + max(int(key.split(".")[1]) for key in tensors if key.startswith("blocks."))
        side = round((tensors["position"].shape[1] - 1) ** 0.5)
        width, patch = tensors["patch.weight"].shape[0], tensors["patch.weight"].shape[-1]
        mlp, frames = tensors["blocks.0.mlp_in.weight"].shape[0], tensors["time"].shape[1]
    except (KeyError, ValueError) as error:
        raise ActionVitError(f"weights {name}: holds no divided space-time TimeSformer ({error})") from error
    shape = TimeSformerConfig(
        width=width, depth=depth, heads=width // 64, mlp=mlp, patch=patch, num_frames=frames, image_size=side * patch
    )
    return Weights(source=name, config=shape, digest=file_digest(file), file=file, licence="CC BY-NC 4.0")


def _shape(config: dict[str, Any], name: str) -> TimeSformerConfig:
    """Read transformers' TimesformerConfig (its defaults where a key is absent) and our two additions."""
    kind = config.get("model_type")
    if kind not in ("timesformer", "actionvit_timesformer"):
        raise ActionVitError(
            f"weights {name}: config.json says {kind!r}, expected 'timesformer'"
            " (an image ViT or CLIP: `actionvit weights inflate SRC OUT` first)"
        )
    attention = config.get("attention_type", "divided_space_time")
    if attention != "divided_space_time":
        raise ActionVitError(f"weights {name}: attention_type {attention!r}, only 'divided_space_time' is supported")
    try:
        return TimeSformerConfig.from_hf(config)
    except (TypeError, ValueError) as error:
        raise ActionVitError(f"weights {name}: config.json: {error}") from error


def image_mean_std(
    pixels: Mapping[str, Any], mean: Sequence[float], std: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation of pixels in [0, 1] by a processor's configuration; what it leaves open is given.

    Raises
    ------
    ValueError
        If it holds anything but three numbers each, deviations above 0; or wants pixels as they are.
    """
    if pixels.get("do_normalize") is False:
        raise ValueError("do_normalize is false, which no TimeSformer was trained with; take the line out")
    found = []
    for name, default in (("image_mean", mean), ("image_std", std)):
        given = default if pixels.get(name) is None else pixels[name]
        three = isinstance(given, (list, tuple)) and len(given) == 3 and all(type(x) in (int, float) for x in given)
        if not three or not all(math.isfinite(x) and (x > 0 or name == "image_mean") for x in given):
            raise ValueError(f"{name}: got {given!r}, expected three numbers" + ", above 0" * (name == "image_std"))
        found.append(tuple(float(x) for x in given))
    return found[0], found[1]


def _json(file: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ActionVitError(f"weights {name}: has no {file.name}; give a Hugging Face folder or a .pyth") from None
    except (OSError, ValueError) as error:
        raise ActionVitError(f"weights {name}: {file.name}: {error}") from error
    if not isinstance(value, dict):
        raise ActionVitError(f"weights {name}: {file.name} holds no object")
    return value


def _read_tensors(file: Path, *, data: bool = True) -> dict[str, Tensor]:
    """Return a file's tensors under its own names; without `data`, their shapes only. Never unpickles code."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except (OSError, SafetensorError) as error:
            raise ActionVitError(f"weights {file}: cannot be read ({error}); fetch them again") from error
    try:
        mapped = True if data and zipfile.is_zipfile(file) else None  # torch's older format cannot be
        held = torch.load(file, map_location="cpu" if data else "meta", weights_only=True, mmap=mapped)
    except Exception as error:  # torch raises UnpicklingError, RuntimeError, EOFError, ... for one bad file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ActionVitError(f"weights {file}: cannot be read without running code in it ({reason})") from error
    for key in ("model_state", "model", "module", "state_dict"):
        if isinstance(held, dict) and isinstance(held.get(key), dict):
            held = held[key]
    if not isinstance(held, dict) or not all(isinstance(value, torch.Tensor) for value in held.values()):
        raise ActionVitError(f"weights {file}: holds no dictionary of tensors; expected a TimeSformer checkpoint")
    return held


def _translated(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return tensors by our names, and the names that mean nothing to us."""
    names = {key: from_transformers(key) or from_original(key) for key in tensors}
    return {ours: tensors[key] for key, ours in names.items() if ours}, [key for key, ours in names.items() if not ours]
