"""Finding the weights of a TimeSformer and their configuration without loading them, and loading them completely."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionvit.errors import ActionVitError, SettingError
from actionvit.features.fingerprint import file_digest
from actionvit.features.hf_folder import image_mean_std, read_json, read_processor
from actionvit.features.hub import WEIGHT_FILES, fetch
from actionvit.features.tensor_file import load_tensors
from actionvit.features.timesformer.config import TimeSformerConfig
from actionvit.features.timesformer.state_dict import check_tensors, from_original, from_transformers
from actionvit.features.timesformer.tiny import TINY_FILE, untrained_digest, untrained_weights
from actionvit.features.timesformer.variants import BUILT_IN, TINY, UNTRAINED, variant_named
from actionvit.text import first_line

if TYPE_CHECKING:
    from torch import Tensor

MEAN, STD = (0.45,) * 3, (0.225,) * 3  # of TimeSformer's training; not ImageNet's
PICKLED = (".pyth", ".pth", ".pt", ".bin")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Weights that exist and are digested, with the settings that a model of them needs."""

    source: str
    """As given by the user or the variant: a folder, a file, a hub id, `built-in`, `untrained`."""
    config: TimeSformerConfig
    digest: str
    """sha256 of the weight file, or of the untrained arrays."""
    file: Path | None = None
    """None for untrained weights."""
    mean: tuple[float, ...] = MEAN
    """Mean of pixel values in [0, 1], per channel."""
    std: tuple[float, ...] = STD
    labels: tuple[str, ...] = ()
    """Class names of a classifier in the file, where they are known."""
    licence: str = ""
    notes: tuple[str, ...] = field(default=())

    def load(self) -> dict[str, Tensor]:
        """Return the tensors in float32 by our names (`state_dict.tensor_shapes`), and `head.*` of a classifier.

        Raises
        ------
        ActionVitError
            If the file cannot be read or is damaged, or a tensor is missing, unexpected or of another shape.
        """
        import torch

        if self.file is None:
            return {name: torch.from_numpy(array) for name, array in untrained_weights(self.config).items()}
        tensors, unknown = _translate(_read_tensors(self.file))
        check_tensors({name: tuple(t.shape) for name, t in tensors.items()}, unknown, self.config, self.source)
        return {name: tensor.float() for name, tensor in tensors.items()}


def find_weights(variant: str, source: str | Path | None = None) -> Weights:
    """Find an encoder's weights, read their configuration and digest them; imports torch for a `.pyth` only.

    Parameters
    ----------
    variant : str
        One of `VARIANTS`; its weights are used where `source` is None.
    source : str or Path, optional
        A Hugging Face folder (`config.json` with `model.safetensors` or `pytorch_model.bin`), an original `.pyth`
        file, a hub id (`owner/name`, from the local cache or the hub), `built-in` (the weights of `tiny`), or
        `untrained` (random numbers in the variant's architecture, as a baseline).

    Raises
    ------
    ActionVitError
        If the weights do not exist, or are not a TimeSformer's; the error names the remedy.
    """
    standard = variant_named(variant)
    name = str(source if source is not None else standard.weights or "")
    if not name:
        raise SettingError(
            f"variant {variant}: no published weights are on the hub; give weights=FOLDER, FILE.pyth or a hub id"
        )
    if name == BUILT_IN:
        notes = ("trained on drawn motions, on no real video",)
        return Weights(
            source=name, config=TINY, digest=file_digest(TINY_FILE), file=TINY_FILE, licence="MIT", notes=notes
        )
    if name == UNTRAINED:
        digest = untrained_digest(standard.config)
        return Weights(
            source=name, config=standard.config, digest=digest, licence="MIT", notes=("random, from a fixed seed",)
        )
    path = Path(name).expanduser()
    if path.is_dir():
        return _from_folder(path, name)
    if path.is_file():
        return _from_file(path, name)
    if isinstance(source, Path) or not _HUB_ID.fullmatch(name):
        raise SettingError(f"weights {name}: no such folder or file; give a Hugging Face folder, a .pyth or a hub id")
    return _from_folder(fetch(name), name)


def _from_folder(folder: Path, name: str) -> Weights:
    config = read_json(folder / "config.json", name)
    file = next((folder / each for each in WEIGHT_FILES if (folder / each).is_file()), None)
    if file is None:
        raise ActionVitError(f"weights {name}: has neither {' nor '.join(WEIGHT_FILES)} (shards are not supported)")
    processor_file, processor = read_processor(folder, name)
    architecture, id2label = _architecture(config, name), config.get("id2label") or {}
    try:
        mean, std = image_mean_std(processor, MEAN, STD)
        labels = tuple(str(id2label[key]) for key in sorted(id2label, key=int))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ActionVitError(
            f"weights {name}: {processor_file or 'processor'} or the labels in config.json: {first_line(error)}"
        ) from error
    return Weights(
        source=name,
        config=architecture,
        digest=file_digest(file),
        file=file,
        mean=mean,
        std=std,
        labels=labels,
        licence=str(config.get("license") or ("CC BY-NC 4.0" if name.startswith("facebook/") else "")),
    )


def _from_file(file: Path, name: str) -> Weights:
    if file.suffix not in PICKLED:
        raise SettingError(f"weights {name}: got {file.suffix!r}, expected a .pyth file, or the folder around it")
    tensors, _ = _translate(_read_tensors(file, data=False))
    try:
        # The original code fixes everything else: ViT-Base, patch 16, a square grid, eps 1e-6.
        depth = 1 + max(int(key.split(".")[1]) for key in tensors if key.startswith("blocks."))
        side = round((tensors["position"].shape[1] - 1) ** 0.5)
        width, patch = tensors["patch.weight"].shape[0], tensors["patch.weight"].shape[-1]
        mlp, frames = tensors["blocks.0.mlp_in.weight"].shape[0], tensors["time"].shape[1]
        config = TimeSformerConfig(
            width=width,
            depth=depth,
            heads=width // 64,
            mlp=mlp,
            patch=patch,
            num_frames=frames,
            image_size=side * patch,
        )
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise ActionVitError(
            f"weights {name}: holds no divided space-time TimeSformer ({first_line(error)})"
        ) from error
    return Weights(source=name, config=config, digest=file_digest(file), file=file, licence="CC BY-NC 4.0")


def _architecture(config: dict[str, Any], name: str) -> TimeSformerConfig:
    """Return the architecture of a TimesformerConfig, with its defaults for missing keys."""
    kind = config.get("model_type")
    if kind not in ("timesformer", "actionvit_timesformer"):
        raise ActionVitError(
            f"weights {name}: config.json has model_type {kind!r}, expected 'timesformer'"
            " (an image ViT or CLIP: `actionvit weights inflate SRC OUT` first)"
        )
    attention = config.get("attention_type", "divided_space_time")
    if attention != "divided_space_time":
        raise ActionVitError(f"weights {name}: attention_type {attention!r}, only 'divided_space_time' is supported")
    try:
        return TimeSformerConfig.from_hf(config)
    except (TypeError, ValueError) as error:
        raise ActionVitError(f"weights {name}: config.json: {first_line(error)}") from error


def _read_tensors(file: Path, *, data: bool = True) -> dict[str, Tensor]:
    """Return a file's tensors under its own names; without `data`, their shapes only. Never unpickles code."""
    import torch

    if file.suffix == ".safetensors":
        return load_tensors(file)[0]
    try:
        mapped = True if data and zipfile.is_zipfile(file) else None  # torch's older format cannot be mapped
        content = torch.load(file, map_location="cpu" if data else "meta", weights_only=True, mmap=mapped)
    except Exception as error:  # torch raises UnpicklingError, RuntimeError, EOFError, ... for a damaged file
        raise ActionVitError(
            f"weights {file}: cannot be read without running code in it ({first_line(error)})"
        ) from error
    for key in ("model_state", "model", "module", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items()
    ):
        raise ActionVitError(f"weights {file}: holds no dictionary of tensors; expected a TimeSformer checkpoint")
    return content


def _translate(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors by our names, and the names that have no counterpart."""
    names = {key: from_transformers(key) or from_original(key) for key in tensors}
    return {ours: tensors[key] for key, ours in names.items() if ours}, [key for key, ours in names.items() if not ours]
