"""Tensor names of a TimeSformer: ours, those of transformers, and those of facebookresearch/TimeSformer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from actionvit.errors import ActionVitError
from actionvit.features.timesformer.config import TimeSformerConfig
from actionvit.text import printable

# One line per module: our name, transformers' and the original's; N stands for the block number.
_MODULES = (
    ("cls", "embeddings.cls_token", "cls_token"),
    ("position", "embeddings.position_embeddings", "pos_embed"),
    ("time", "embeddings.time_embeddings", "time_embed"),
    ("patch", "embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("pre_norm", "embeddings.pre_layernorm", None),  # transformers' TimeSformer has none
    ("norm", "layernorm", "norm"),
    ("head", "classifier", "head"),
    ("blocks.N.time_norm", "encoder.layer.N.temporal_layernorm", "blocks.N.temporal_norm1"),
    ("blocks.N.time_qkv", "encoder.layer.N.temporal_attention.attention.qkv", "blocks.N.temporal_attn.qkv"),
    ("blocks.N.time_proj", "encoder.layer.N.temporal_attention.output.dense", "blocks.N.temporal_attn.proj"),
    ("blocks.N.time_dense", "encoder.layer.N.temporal_dense", "blocks.N.temporal_fc"),
    ("blocks.N.space_norm", "encoder.layer.N.layernorm_before", "blocks.N.norm1"),
    ("blocks.N.space_qkv", "encoder.layer.N.attention.attention.qkv", "blocks.N.attn.qkv"),
    ("blocks.N.space_proj", "encoder.layer.N.attention.output.dense", "blocks.N.attn.proj"),
    ("blocks.N.mlp_norm", "encoder.layer.N.layernorm_after", "blocks.N.norm2"),
    ("blocks.N.mlp_in", "encoder.layer.N.intermediate.dense", "blocks.N.mlp.fc1"),
    ("blocks.N.mlp_out", "encoder.layer.N.output.dense", "blocks.N.mlp.fc2"),
)
_FROM_HF = {theirs: ours for ours, theirs, _ in _MODULES}
_FROM_ORIGINAL = {theirs: ours for ours, _, theirs in _MODULES if theirs}
_TO_HF = {ours: theirs for ours, theirs, _ in _MODULES}
_BLOCK = re.compile(r"(?<=\.)\d+(?=\.)")


def _translate(name: str, table: Mapping[str, str]) -> str | None:
    number = _BLOCK.search(name)
    general = _BLOCK.sub("N", name, count=1)
    module, dot, kind = general.rpartition(".")
    other = table.get(general) or (table[module] + dot + kind if module in table else None)
    return other.replace(".N.", f".{number[0]}.") if other and number else other


def from_transformers(name: str) -> str | None:
    """Return our name of a transformers tensor (with or without the prefix `timesformer.`), None if unknown."""
    return _translate(name.removeprefix("timesformer."), _FROM_HF)


def from_original(name: str) -> str | None:
    """Return our name of a tensor of a facebookresearch `.pyth`, None if unknown."""
    return _translate(name.removeprefix("module.").removeprefix("model."), _FROM_ORIGINAL)


def to_transformers(name: str, *, prefix: str = "timesformer.") -> str:
    """Return the name of one of our tensors in a TimesformerForVideoClassification."""
    other = _translate(name, _TO_HF)
    assert other is not None, name
    return other if other.startswith("classifier.") else prefix + other


def tensor_shapes(config: TimeSformerConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a model, by our name, without the classifier `head`."""
    D = config.width
    linear = {"qkv": (3 * D, D), "in": (config.mlp, D), "out": (D, config.mlp)}
    shapes: dict[str, tuple[int, ...]] = {
        "cls": (1, 1, D),
        "position": (1, 1 + config.patches, D),
        "time": (1, config.num_frames, D),
        "patch.weight": (D, 3, config.patch, config.patch),
    }
    if config.patch_bias:
        shapes["patch.bias"] = (D,)
    modules = [ours for ours, _, _ in _MODULES if ours.startswith("blocks.N.")]
    blocks = [module.replace("N", str(block), 1) for block in range(config.depth) for module in modules]
    for module in [*(["pre_norm"] if config.pre_norm else []), *blocks, "norm"]:
        kind = module.rpartition("_")[2]
        out = linear.get(kind, (D, D))
        is_norm = kind == "norm"
        shapes[f"{module}.weight"] = (D,) if is_norm else out
        if kind != "qkv" or config.qkv_bias:
            shapes[f"{module}.bias"] = out[:1]
    return shapes


def check_tensors(
    shapes: Mapping[str, tuple[int, ...]], unknown: Iterable[str], config: TimeSformerConfig, source: str
) -> None:
    """Check that tensors are exactly those of a model, with or without a classifier.

    Parameters
    ----------
    shapes : mapping of str to tuple
        The tensors' shapes by our names.
    unknown : iterable of str
        Names in the file that have no name of ours.
    config : TimeSformerConfig
        The model.
    source : str
        Names the file in the error.

    Raises
    ------
    ActionVitError
        Naming the missing, the unexpected and the misshapen tensors (at most three of each).
    """
    expected = tensor_shapes(config)
    names = {name for name in shapes if not name.startswith("head.")}
    problems = {
        "missing": sorted(set(expected) - names),
        "unexpected": sorted({*(names - set(expected)), *unknown}),
        "of another shape": [
            f"{name} {shapes[name]} instead of {expected[name]}"
            for name in sorted(names & set(expected))
            if shapes[name] != expected[name]
        ],
    }
    shown = {kind: [printable(item)[:100] for item in items] for kind, items in problems.items()}
    parts = [
        f"{len(items)} {kind} ({', '.join(items[:3])}{', ...' if len(items) > 3 else ''})"
        for kind, items in shown.items()
        if items
    ]
    if parts:
        raise ActionVitError(
            f"weights {source}: tensors {'; '.join(parts)}: not a divided space-time TimeSformer of "
            f"{config.depth} blocks × {config.width}; give a complete checkpoint as weights="
            " (of an image ViT: `actionvit weights inflate SRC OUT` first)"
        )
