"""TimeSformer with divided space-time attention: weights of every origin, and an exact, faster forward.

::

    weights = find_weights("base")
    encoder = Encoder(weights, clip_spec("base"), device="auto")
    arrays = encoder.encode(frames)  # {"clip": (K, D), "frame": (K, T, D), "index": (K, T)}

Only `AttentionRollout`, `Encoder` and `TimeSformer` import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actionvit.lazy import lazy_names

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
    "Weights": "checkpoint",
    "find_weights": "checkpoint",
    "TimeSformerConfig": "config",
    "Encoder": "encoder",
    "TimeSformer": "model",
    "AttentionRollout": "rollout",
    "attention_rollout": "rollout",
    "VARIANTS": "variants",
    "clip_spec": "variants",
    "gmac": "variants",
}

# Import a public name on first use, so that planning an extraction loads no torch.
__getattr__ = lazy_names(__name__, _MODULES)
