"""The weights of `tiny` and `tiny-hr`: trained on drawn motions, and what they are compared with, untrained ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actionvit.features.timesformer.config import TimeSformerConfig
from actionvit.features.timesformer.state_dict import tensor_shapes

TINY = TimeSformerConfig(width=128, depth=4, heads=4, mlp=512, patch=16, num_frames=8, image_size=112)
TINY_FILE = Path(__file__).with_name("tiny.safetensors")
"""Made by `experiments/train_tiny.py`, half precision, transformers' names; docs/finetuning.md says how."""
SEED = 51


def untrained_weights() -> dict[str, NDArray[np.float32]]:
    """Return random weights by our names: about a million numbers, in a few milliseconds.

    Only uniform draws of `RandomState`, whose stream numpy froze, and which are exact arithmetic on its bits: a normal
    draw would go through the platform's logarithm. Standard deviations are larger than a training's start (fan-in
    instead of 0.02), so that attention is far from uniform and motion reaches the CLS token without training: random
    features with some signal.
    """
    random = np.random.RandomState(SEED)
    return {name: _draw(random, name, size) for name, size in sorted(tensor_shapes(TINY).items())}


def _draw(random: np.random.RandomState, name: str, size: tuple[int, ...]) -> NDArray[np.float32]:
    kind = name.rpartition(".")[0].rpartition("_")[2]
    if kind == "norm":
        return np.full(size, float(name.endswith("weight")), dtype=np.float32)
    if name.endswith("bias"):
        return np.zeros(size, dtype=np.float32)
    if name in ("cls", "position", "time"):
        deviation = 0.5
    else:
        # Queries and keys twice as wide: logits of deviation 4 instead of 1, so that heads look somewhere.
        deviation = (2.0 if kind == "qkv" else 1.0) / np.sqrt(np.prod(size[1:]))
    bound = deviation * np.sqrt(3.0)
    drawn: NDArray[np.float32] = (random.random_sample(size) * (2 * bound) - bound).astype(np.float32)
    return drawn
