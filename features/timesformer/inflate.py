"""An image ViT -> a TimeSformer that sees a still clip exactly as the ViT sees the picture.

Space attention and MLP are the ViT's; time attention starts as a copy of space attention behind a zero projection
(`temporal_dense`), and time embeddings are zero, as in the published initialisation (Bertasius et al., ICML 2021).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionvit.errors import ActionVitError
from actionvit.features.atomic import atomic_write
from actionvit.features.timesformer.checkpoint import image_mean_std
from actionvit.features.timesformer.config import TimeSformerConfig
from actionvit.features.timesformer.state_dict import tensor_shapes, to_transformers

if TYPE_CHECKING:
    from torch import Tensor

FRAMES = 8
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
VIT_MEAN, VIT_STD = (0.5,) * 3, (0.5,) * 3

_BLOCK = re.compile(r"(.*)\.(?:layer|layers)\.(\d+)\.(.*)")
# A kind of model: what its tensors are called, by our names.
_CLIP = {
    "embeddings.class_embedding": "cls",
    "embeddings.position_embedding.weight": "position",
    "embeddings.patch_embedding": "patch",
    "pre_layrnorm": "pre_norm",  # the name has lacked this letter since CLIP was ported
    "post_layernorm": "norm",
    "layer_norm1": "space_norm",
    "self_attn.q_proj": "space_q",
    "self_attn.k_proj": "space_k",
    "self_attn.v_proj": "space_v",
    "self_attn.out_proj": "space_proj",
    "layer_norm2": "mlp_norm",
    "mlp.fc1": "mlp_in",
    "mlp.fc2": "mlp_out",
}
_VIT = {
    "embeddings.cls_token": "cls",
    "embeddings.position_embeddings": "position",
    "embeddings.patch_embeddings.projection": "patch",
    "layernorm": "norm",
    "layernorm_before": "space_norm",
    "attention.attention.query": "space_q",
    "attention.attention.key": "space_k",
    "attention.attention.value": "space_v",
    "attention.output.dense": "space_proj",
    "layernorm_after": "mlp_norm",
    "intermediate.dense": "mlp_in",
    "output.dense": "mlp_out",
}
_LEFT_OUT = (
    *("visual_projection.", "text_projection.", "logit_scale", "classifier.", "pooler."),
    "vision_model.embeddings.position_ids",
)


def inflate(source: Path, out: Path) -> TimeSformerConfig:
    """Write a TimeSformer folder out of an image ViT's.

    Parameters
    ----------
    source : Path
        A Hugging Face folder, `config.json` and `model.safetensors`, of a ViT or of a CLIP vision tower.
    out : Path
        The folder to write; `--weights OUT` reads it. Must not hold weights yet.

    Returns
    -------
    TimeSformerConfig
        Of what was written.

    Raises
    ------
    ActionVitError
        If the source is no image ViT, or has a tensor too few or too many.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save

    try:
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        tensors = load_file(source / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise ActionVitError(f"{source}: not a folder with config.json and model.safetensors ({error})") from error
    if (out / "model.safetensors").exists():
        raise ActionVitError(f"{out}: holds weights already; name another folder")
    config = config.get("vision_config", config)
    kind = config.get("model_type")
    if kind not in ("clip_vision_model", "vit"):
        raise ActionVitError(f"{source}: model_type is {kind!r}, expected 'clip_vision_model' or 'vit'")
    try:
        shape = _architecture(config, clip=kind == "clip_vision_model")
        mean, std = _pixels(source, shape)
    except (OSError, TypeError, ValueError, AttributeError) as error:
        raise ActionVitError(f"{source}: config.json or preprocessor_config.json: {error}; fetch them again") from error
    ours = _add_time_dimension(_renamed(tensors, _CLIP if shape.pre_norm else _VIT, source), shape)
    _check(ours, shape, source)
    out.mkdir(parents=True, exist_ok=True)
    named = {to_transformers(name): tensor.contiguous() for name, tensor in ours.items()}
    _write_json(out / "config.json", shape.to_hf())
    _write_json(out / "preprocessor_config.json", {"image_mean": mean, "image_std": std})
    atomic_write(out / "model.safetensors", save(named, metadata={"format": "pt"}))  # last: with it the folder is whole
    return shape


def _architecture(config: dict[str, Any], *, clip: bool) -> TimeSformerConfig:
    """Return the architecture of an image model of transformers, with its own defaults."""
    if clip:
        defaults = {"patch": 32, "act": "quick_gelu", "eps": 1e-5, "pre_norm": True, "patch_bias": False}
    else:
        defaults = {"eps": 1e-12}
    return TimeSformerConfig.from_hf({**config, "num_frames": FRAMES}, **defaults)


def _renamed(tensors: dict[str, Tensor], table: dict[str, str], source: Path) -> dict[str, Tensor]:
    """Return the tensors by our names; `space_q`, `_k`, `_v` still apart."""
    found = {}
    for name, tensor in tensors.items():
        if name.startswith(_LEFT_OUT) or name.startswith("text_model."):
            continue
        plain = name.removeprefix("vision_model.").removeprefix("vit.")
        block = _BLOCK.fullmatch(plain)
        inner = block[3] if block else plain
        module, _, end = inner.rpartition(".")
        ours = table.get(inner) or (f"{table[module]}.{end}" if module in table else None)
        if ours is None:
            raise ActionVitError(f"{source}: tensor {name} has no place in a TimeSformer; give a plain ViT or CLIP")
        found[f"blocks.{block[2]}.{ours}" if block else ours] = tensor.float()
    return found


def _add_time_dimension(tensors: dict[str, Tensor], shape: TimeSformerConfig) -> dict[str, Tensor]:
    """Join queries, keys and values, and add what an image model has not: time."""
    import torch

    D = shape.width
    out = {name: tensor for name, tensor in tensors.items() if ".space_q" not in name}
    out = {name: tensor for name, tensor in out.items() if ".space_k" not in name and ".space_v" not in name}
    for end in ("weight", "bias"):
        for block in range(shape.depth):
            parts = [tensors.get(f"blocks.{block}.space_{letter}.{end}") for letter in "qkv"]
            whole = [part for part in parts if part is not None]
            if len(whole) == 3:
                out[f"blocks.{block}.space_qkv.{end}"] = torch.cat(whole)
    for name in [name for name in out if ".space_" in name]:
        out[name.replace(".space_", ".time_")] = out[name].clone()
    for block in range(shape.depth):
        out[f"blocks.{block}.time_dense.weight"] = torch.zeros(D, D)
        out[f"blocks.{block}.time_dense.bias"] = torch.zeros(D)
    out["time"] = torch.zeros(1, shape.num_frames, D)
    for name in ("cls", "position"):
        if name in out:
            out[name] = out[name].reshape(1, -1, D)
    return out


def _check(tensors: dict[str, Tensor], shape: TimeSformerConfig, source: Path) -> None:
    from actionvit.features.timesformer.state_dict import check_tensors

    check_tensors({name: tuple(tensor.shape) for name, tensor in tensors.items()}, (), shape, str(source))
    assert set(tensors) == set(tensor_shapes(shape))


def _pixels(source: Path, shape: TimeSformerConfig) -> tuple[list[float], list[float]]:
    """Return mean and deviation that the image model was trained with."""
    file = source / "preprocessor_config.json"
    given = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    mean, std = (CLIP_MEAN, CLIP_STD) if shape.pre_norm else (VIT_MEAN, VIT_STD)
    found = image_mean_std(given, mean, std)
    return list(found[0]), list(found[1])


def _write_json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
