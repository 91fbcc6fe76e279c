"""Inflate an image ViT to a TimeSformer with the same embedding for a clip of one repeated image.

Space attention and MLP are the ViT's; time attention starts as a copy of space attention behind a zero projection
(`temporal_dense`), and time embeddings are zero, as in the published initialization (Bertasius et al., ICML 2021).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionvit.errors import ActionVitError
from actionvit.features.hf_folder import image_mean_std, read_json, read_processor
from actionvit.features.tensor_file import load_tensors, save_tensors
from actionvit.features.timesformer.config import TimeSformerConfig
from actionvit.features.timesformer.state_dict import check_tensors, to_transformers

if TYPE_CHECKING:
    from torch import Tensor

FRAMES = 8
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
VIT_MEAN, VIT_STD = (0.5,) * 3, (0.5,) * 3

_BLOCK = re.compile(r"(.*)\.(?:layer|layers)\.(\d+)\.(.*)")
# Tensor names of the two kinds of image model -> our names.
_CLIP = {
    "embeddings.class_embedding": "cls",
    "embeddings.position_embedding.weight": "position",
    "embeddings.patch_embedding": "patch",
    "pre_layrnorm": "pre_norm",  # transformers' spelling
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
_IGNORED = (
    *("visual_projection.", "text_projection.", "logit_scale", "classifier.", "pooler."),
    "vision_model.embeddings.position_ids",
)


def inflate(source: Path, out: Path) -> TimeSformerConfig:
    """Write a TimeSformer folder made from an image ViT.

    Parameters
    ----------
    source : Path
        A Hugging Face folder, `config.json` and `model.safetensors`, of a ViT or of a CLIP vision tower.
    out : Path
        The folder to write, for `find_weights`. Must not hold weights yet.

    Returns
    -------
    TimeSformerConfig
        The architecture of the new model.

    Raises
    ------
    ActionVitError
        If the source is not an image ViT, or tensors are missing or unexpected.
    """
    name = str(source)
    if not (source / "model.safetensors").is_file():
        raise ActionVitError(
            f"{source}: not a folder with config.json and model.safetensors; give that of an image ViT or CLIP"
        )
    config = read_json(source / "config.json", name)
    processor_file, processor = read_processor(source, name)
    tensors, _ = load_tensors(source / "model.safetensors")
    if (out / "model.safetensors").exists():
        raise ActionVitError(f"{out}: holds weights already; name another folder")
    config = config.get("vision_config", config)
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in ("clip_vision_model", "vit"):
        raise ActionVitError(f"{source}: model_type is {kind!r}, expected 'clip_vision_model' or 'vit'")
    clip = kind == "clip_vision_model"
    try:
        architecture = _architecture(config, clip=clip)
        mean, std = image_mean_std(processor, *((CLIP_MEAN, CLIP_STD) if clip else (VIT_MEAN, VIT_STD)))
    except (TypeError, ValueError) as error:
        raise ActionVitError(f"{source}: config.json or {processor_file}: {error}; fetch them again") from error
    inflated = _add_time_dimension(_rename(tensors, _CLIP if clip else _VIT, source), architecture)
    check_tensors({key: tuple(tensor.shape) for key, tensor in inflated.items()}, (), architecture, name)
    out.mkdir(parents=True, exist_ok=True)
    _write_json(out / "config.json", architecture.to_hf())
    _write_json(out / "preprocessor_config.json", {"image_mean": list(mean), "image_std": list(std)})
    named = {to_transformers(key): tensor for key, tensor in inflated.items()}
    save_tensors(out / "model.safetensors", named)  # last: a folder with this file is complete
    return architecture


def _architecture(config: dict[str, Any], *, clip: bool) -> TimeSformerConfig:
    """Return the architecture of an image model of transformers, with its own defaults."""
    if clip:
        defaults = {"patch": 32, "act": "quick_gelu", "eps": 1e-5, "pre_norm": True, "patch_bias": False}
    else:
        defaults = {"eps": 1e-12}
    return TimeSformerConfig.from_hf({**config, "num_frames": FRAMES}, **defaults)


def _rename(tensors: dict[str, Tensor], table: dict[str, str], source: Path) -> dict[str, Tensor]:
    """Return the tensors by our names; `space_q`, `_k`, `_v` are still separate."""
    renamed = {}
    for name, tensor in tensors.items():
        if name.startswith(_IGNORED) or name.startswith("text_model."):
            continue
        plain = name.removeprefix("vision_model.").removeprefix("vit.")
        block = _BLOCK.fullmatch(plain)
        inner = block[3] if block else plain
        module, _, end = inner.rpartition(".")
        ours = table.get(inner) or (f"{table[module]}.{end}" if module in table else None)
        if ours is None:
            raise ActionVitError(f"{source}: tensor {name} has no place in a TimeSformer; give a plain ViT or CLIP")
        renamed[f"blocks.{block[2]}.{ours}" if block else ours] = tensor.float()
    return renamed


def _add_time_dimension(tensors: dict[str, Tensor], config: TimeSformerConfig) -> dict[str, Tensor]:
    """Join queries, keys and values, and add the time attention and embedding that an image model lacks."""
    import torch

    D = config.width
    out = {name: tensor for name, tensor in tensors.items() if not re.search(r"\.space_[qkv]\.", name)}
    for end in ("weight", "bias"):
        for block in range(config.depth):
            parts = [tensors.get(f"blocks.{block}.space_{letter}.{end}") for letter in "qkv"]
            present = [part for part in parts if part is not None]
            if len(present) == 3:
                out[f"blocks.{block}.space_qkv.{end}"] = torch.cat(present)
    for name in [name for name in out if ".space_" in name]:
        out[name.replace(".space_", ".time_")] = out[name].clone()
    for block in range(config.depth):
        out[f"blocks.{block}.time_dense.weight"] = torch.zeros(D, D)
        out[f"blocks.{block}.time_dense.bias"] = torch.zeros(D)
    out["time"] = torch.zeros(1, config.num_frames, D)
    for name in ("cls", "position"):
        if name in out:
            out[name] = out[name].reshape(1, -1, D)
    return out


def _write_json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
