"""The arrays an encoder computes per video, and the settings that change their numbers. Does not import torch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from typing import Any, Literal

from actionvit.errors import SettingError
from actionvit.features.sampling import ClipSpec
from actionvit.features.timesformer.checkpoint import Weights
from actionvit.features.timesformer.config import TimeSformerConfig

FramePool = Literal["cls", "mean"]
RESIZE = "short side, antialiased bilinear, 8 bit"
"""Names `transforms.resize_short_side` in a cache key: change it whenever the resized pixels change."""
OutputSpec = dict[str, tuple[tuple[int, ...], str]]
"""Array name -> (shape per video, dtype)."""


def output_spec(
    config: TimeSformerConfig, spec: ClipSpec, *, layers: Collection[int] = (), tokens_after: int | None = None
) -> OutputSpec:
    """Return the shape and dtype of every array an encoder computes for one video.

    Parameters
    ----------
    config, spec : TimeSformerConfig, ClipSpec
        The model and its views.
    layers : collection of int
        Blocks, counted from 1, whose CLS token is an array `layerN` of its own.
    tokens_after : int, optional
        Number of blocks after which all tokens are an array `tokensN`; 0 means the embeddings.

    Raises
    ------
    ActionVitError
        If the model has no such block, or the size is not a whole number of patches.
    """
    K, T, D, P = spec.views, spec.num_frames, config.width, (spec.size // config.patch) ** 2
    if spec.size % config.patch:
        raise SettingError(f"size: got {spec.size}, expected a multiple of the model's patch, {config.patch} pixels")
    arrays: OutputSpec = {"clip": ((K, D), "float32"), "frame": ((K, T, D), "float32"), "index": ((K, T), "int32")}
    for layer in sorted(set(layers)):
        if not 1 <= layer <= config.depth:
            raise SettingError(f"save_layers: got {layer}, expected 1 to {config.depth}, the model's blocks")
        arrays[f"layer{layer}"] = ((K, D), "float32")
    if tokens_after is not None:
        if not 0 <= tokens_after < config.depth:
            raise SettingError(f"save_tokens_after: got {tokens_after}, expected 0 to {config.depth - 1}")
        arrays[f"tokens{tokens_after}"] = ((K, T, 1 + P, D), "float16")
    return arrays


def cache_key_fields(
    weights: Weights,
    spec: ClipSpec,
    *,
    precision: str,
    frame_pool: FramePool = "cls",
    layers: Collection[int] = (),
    tokens_after: int | None = None,
    compiled: bool = False,
) -> dict[str, Any]:
    """Return everything of an encoder that changes its numbers, as plain values.

    Parameters
    ----------
    weights, spec : Weights, ClipSpec
        The encoder's weights and views.
    precision : str
        A resolved precision (`resolve_device`), never `auto`.
    frame_pool, layers, tokens_after
        As for `Encoder`.
    compiled : bool
        Whether `torch.compile` builds the forward: it changes the order of sums, and so the rounding.
    """
    assert precision != "auto"
    return {
        "weights": weights.digest,
        "model": asdict(weights.config),
        "clip": asdict(spec),
        "preprocessing": {"resize": RESIZE, "mean": list(weights.mean), "std": list(weights.std)},
        "precision": f"{precision}, compiled" if compiled else precision,
        "outputs": {"frame_pool": frame_pool, "layers": sorted(set(layers)), "tokens_after": tokens_after},
    }
