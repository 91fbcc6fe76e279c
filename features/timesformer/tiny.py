"""Weights that need no download: the built-in ones of `tiny` and `tiny-hr`, and random ones for any architecture."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actionvit.features.timesformer.config import TimeSformerConfig
from actionvit.features.timesformer.state_dict import tensor_shapes
from actionvit.features.timesformer.variants import TINY

TINY_FILE = Path(__file__).with_name("tiny.safetensors")
"""Written by `experiments/train_tiny.py`, half precision, transformers' names; see docs/how-to/fine-tuning.md."""
SEED = 51


def untrained_weights(config: TimeSformerConfig = TINY) -> dict[str, NDArray[np.float32]]:
    """Return random weights by our names, the same on every machine.

    Only uniform draws of `RandomState`, whose stream numpy froze, and exact arithmetic on its bits: a normal draw
    depends on the platform's logarithm. Standard deviations are larger than in training from scratch (fan-in instead
    of 0.02), so that attention is far from uniform and motion reaches the CLS token: random features with some signal.
    """
    return dict(_draw_all(config))


def untrained_digest(config: TimeSformerConfig) -> str:
    """Return the sha256 of the names, shapes and bytes of `untrained_weights`."""
    digest = hashlib.sha256()
    for name, array in _draw_all(config):
        digest.update(f"{name}{array.shape}".encode())
        digest.update(array.astype("<f4", copy=False).data)
    return digest.hexdigest()


def _draw_all(config: TimeSformerConfig) -> Iterator[tuple[str, NDArray[np.float32]]]:
    random = np.random.RandomState(SEED)
    for name, shape in sorted(tensor_shapes(config).items()):
        yield name, _draw(random, name, shape)


def _draw(random: np.random.RandomState, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    kind = name.rpartition(".")[0].rpartition("_")[2]
    if kind == "norm":
        return np.full(shape, float(name.endswith("weight")), dtype=np.float32)
    if name.endswith("bias"):
        return np.zeros(shape, dtype=np.float32)
    # Queries and keys twice as wide: logits of standard deviation 4 instead of 1, so that heads attend somewhere.
    fan_in = (2.0 if kind == "qkv" else 1.0) / np.sqrt(np.prod(shape[1:]))
    std = 0.5 if name in ("cls", "position", "time") else fan_in
    bound = std * np.sqrt(3.0)
    array: NDArray[np.float32] = (random.random_sample(shape) * (2 * bound) - bound).astype(np.float32)
    return array
