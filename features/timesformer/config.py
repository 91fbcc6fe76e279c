"""The architecture of a TimeSformer, and its form in transformers' `config.json`. Imports neither torch nor weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Activation = Literal["gelu", "quick_gelu"]

# Our field and transformers' key, shared by TimesformerConfig, ViTConfig and CLIPVisionConfig.
_HF_KEYS = {
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp": "intermediate_size",
    "patch": "patch_size",
    "num_frames": "num_frames",
    "image_size": "image_size",
    "act": "hidden_act",
    "eps": "layer_norm_eps",
    "qkv_bias": "qkv_bias",
    "pre_norm": "pre_norm",
    "patch_bias": "patch_bias",
}


MAX_DEPTH = 1000
"""Largest number of blocks: a damaged configuration must not fill the memory with tensor names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSformerConfig:
    """The architecture: everything of a TimeSformer except its weights. The defaults are TimeSformer base."""

    width: int = 768
    """D, the width of the residual stream."""
    depth: int = 12
    """Number of blocks, each with time attention, space attention and an MLP."""
    heads: int = 12
    mlp: int = 3072
    """Hidden width of the MLP."""
    patch: int = 16
    """Side of a square patch in pixels."""
    num_frames: int = 8
    """Length of the stored time embedding; it is resampled for other frame counts."""
    image_size: int = 224
    """Side in pixels of the stored position embedding; it is resampled for other sizes."""
    act: Activation = "gelu"
    eps: float = 1e-6
    """Epsilon of every LayerNorm."""
    qkv_bias: bool = True
    pre_norm: bool = False
    """Whether a LayerNorm precedes the first block, as in CLIP."""
    patch_bias: bool = True
    """False for CLIP's patch convolution."""

    def __post_init__(self) -> None:
        """Validate the fields."""
        sizes = ("width", "depth", "heads", "mlp", "patch", "num_frames", "image_size")
        if wrong := [name for name in sizes if not isinstance(getattr(self, name), int) or getattr(self, name) < 1]:
            raise ValueError(f"{wrong[0]}: got {getattr(self, wrong[0])!r}, expected a whole number of at least 1")
        if self.depth > MAX_DEPTH:
            raise ValueError(f"depth: got {self.depth}, expected at most {MAX_DEPTH}")
        if self.image_size < self.patch:
            raise ValueError(f"image_size: got {self.image_size}, expected at least one patch of {self.patch}")
        if self.width % self.heads:
            raise ValueError(f"width: got {self.width}, expected a multiple of heads = {self.heads}")
        if self.act not in ("gelu", "quick_gelu"):
            raise ValueError(f"act: got {self.act!r}, expected one of gelu, quick_gelu")

    @property
    def patches(self) -> int:
        """P, the number of patches per frame of the stored position embedding."""
        return (self.image_size // self.patch) ** 2

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], **defaults: Any) -> TimeSformerConfig:
        """Return the architecture that a transformers configuration describes.

        Parameters
        ----------
        config : mapping
            `config.json` of a TimeSformer, or the part of a ViT or CLIP vision tower that an inflation keeps.
        **defaults
            Field values for keys that `config` lacks, where they are not TimeSformer's.

        Raises
        ------
        TypeError, ValueError
            If a value is out of range or of the wrong type.
        """
        values = {field: config[key] for field, key in _HF_KEYS.items() if key in config}
        fields = {**defaults, **values}
        if "eps" in fields:
            fields["eps"] = float(fields["eps"])
        return cls(**fields)

    def to_hf(self) -> dict[str, Any]:
        """Return the `config.json` of this model.

        A model with CLIP's `pre_norm`, which transformers' TimeSformer lacks, gets a model type of our own.
        """
        values = {key: getattr(self, field) for field, key in _HF_KEYS.items()}
        if not self.pre_norm:
            del values["pre_norm"], values["patch_bias"]
        kind = "actionvit_timesformer" if self.pre_norm else "timesformer"
        return {"model_type": kind, "attention_type": "divided_space_time", **values}
