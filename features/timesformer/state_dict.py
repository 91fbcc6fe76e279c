"""What the tensors of a TimeSformer are called: here, in transformers, and in facebookresearch/TimeSformer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from actionvit.errors import ActionVitError
from actionvit.features.timesformer.config import TimeSformerConfig

# One line a module: ours, transformers' and the original's; N stands for the block.
_MODULES = (
    ("cls", "embeddings.cls_token", "cls_token"),
    ("position", "embeddings.position_embeddings", "pos_embed"),
    ("time", "embeddings.time_embeddings", "time_embed"),
    ("patch", "embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("pre_norm", "embeddings.pre_layernorm", None),  # ours alone: transformers knows no TimeSformer with one
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
    found = table.get(general) or (table[module] + dot + kind if module in table else None)
    return found.replace(".N.", f".{number[0]}.") if found and number else found


def from_transformers(name: str) -> str | None:
    """Return our name of a transformers tensor (with or without `timesformer.` before it), None for an unknown one."""
    return _translate(name.removeprefix("timesformer."), _FROM_HF)


def from_original(name: str) -> str | None:
    """Return our name of a tensor of a facebookresearch `.pyth`, None for an unknown one."""
    return _translate(name.removeprefix("module.").removeprefix("model."), _FROM_ORIGINAL)


def to_transformers(name: str, *, prefix: str = "timesformer.") -> str:
    """Return what transformers calls one of our tensors in a TimesformerForVideoClassification."""
    found = _translate(name, _TO_HF)
    assert found is not None, name
    return found if found.startswith("classifier.") else prefix + found


def tensor_shapes(shape: TimeSformerConfig) -> dict[str, tuple[int, ...]]:
    """Return every tensor a model of this shape has, by our name; the classifier `head` is not part of it."""
    D = shape.width
    linear = {"qkv": (3 * D, D), "in": (shape.mlp, D), "out": (D, shape.mlp)}
    shapes: dict[str, tuple[int, ...]] = {
        "cls": (1, 1, D),
        "position": (1, 1 + shape.patches, D),
        "time": (1, shape.num_frames, D),
        "patch.weight": (D, 3, shape.patch, shape.patch),
    }
    if shape.patch_bias:
        shapes["patch.bias"] = (D,)
    modules = [ours for ours, _, _ in _MODULES if ours.startswith("blocks.N.")]
    blocks = [module.replace("N", str(block), 1) for block in range(shape.depth) for module in modules]
    for module in [*(["pre_norm"] if shape.pre_norm else []), *blocks, "norm"]:
        kind = module.rpartition("_")[2]
        out = linear.get(kind, (D, D))
        is_norm = kind == "norm"
        shapes[f"{module}.weight"] = (D,) if is_norm else out
        if kind != "qkv" or shape.qkv_bias:
            shapes[f"{module}.bias"] = out[:1]
    return shapes


def check_tensors(
    found: Mapping[str, tuple[int, ...]], unknown: Iterable[str], shape: TimeSformerConfig, where: str
) -> None:
    """Refuse weights that are not exactly a model of this shape, with or without a classifier.

    Raises
    ------
    ActionVitError
        Naming the missing, the unexpected and the misshapen tensors (three of each at most).
    """
    expected = tensor_shapes(shape)
    own = {name for name in found if not name.startswith("head.")}
    problems = {
        "missing": sorted(set(expected) - own),
        "unexpected": sorted({*(own - set(expected)), *unknown}),
        "of another shape": [
            f"{name} {found[name]} instead of {expected[name]}"
            for name in sorted(own & set(expected))
            if found[name] != expected[name]
        ],
    }
    said = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in problems.items()
        if names
    ]
    if said:
        raise ActionVitError(
            f"weights {where}: tensors {'; '.join(said)}: not a divided space-time TimeSformer of "
            f"{shape.depth} blocks × {shape.width}; give --weights a complete checkpoint"
            " (of an image ViT: `actionvit weights inflate SRC OUT` first)"
        )
