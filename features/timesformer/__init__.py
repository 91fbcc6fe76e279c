"""TimeSformer with divided space-time attention: weights of every origin, and an exact, faster forward.

::

    weights = find_weights("base")
    encoder = Encoder(weights, clip_spec("base"), device="auto")
    arrays = encoder.encode(frames)  # {"clip": (K, D), "frame": (K, T, D), "index": (K, T)}

Only `AttentionRollout`, `Encoder` and `TimeSformer` import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actionvit.features.timesformer.checkpoint import Weights, find_weights
    from actionvit.features.timesformer.config import TimeSformerConfig
    from actionvit.features.timesformer.encoder import Encoder
    from actionvit.features.timesformer.model import TimeSformer
    from actionvit.features.timesformer.rollout import AttentionRollout, attention_rollout
    from actionvit.features.timesformer.variants import VARIANTS, clip_spec, gmac

__all__ = [
    "VARIANTS",
    "AttentionRollout",
    "Encoder",
    "TimeSformer",
    "TimeSformerConfig",
    "Weights",
    "attention_rollout",
    "clip_spec",
    "find_weights",
    "gmac",
]

_MODULES = {
    "checkpoint": ("Weights", "find_weights"),
    "config": ("TimeSformerConfig",),
    "encoder": ("Encoder",),
    "model": ("TimeSformer",),
    "rollout": ("AttentionRollout", "attention_rollout"),
    "variants": ("VARIANTS", "clip_spec", "gmac"),
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that planning an extraction loads no torch."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
