"""How fast what learns: rates and left-out blocks by depth, rates by step, weight decay, a moving average."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimSpec:
    """AdamW's settings (Loshchilov and Hutter, ICLR 2019) and how its rate moves."""

    lr: float = 1e-4
    """Of the head and the last block, at the height of the schedule."""
    layer_decay: float = 0.75
    """Each block below learns at this share of the one above (Clark et al., ICLR 2020; BEiT, 2021)."""
    weight_decay: float = 0.05
    """Of matrices; not of biases, LayerNorms and embeddings."""
    warmup: float = 0.1
    """Share of all steps in which the rate rises from 0."""
    clip_norm: float = 1.0
    """Longest gradient; 0 for no limit."""
    ema: float = 0.0
    """Decay a step of the moving average that is scored and kept instead of the weights themselves; 0 for none."""


def rate_at(step: int, steps: int, warmup: float) -> float:
    """Return the share of the full rate at a step from 0: a straight rise, then half a cosine down to 0."""
    rising = max(1, round(warmup * steps)) if warmup else 0
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def layer_of(name: str, depth: int) -> int:
    """Return how far up a parameter lies: 0 for the embeddings, 1 to depth for blocks, depth + 1 for what follows."""
    if block := re.match(r"blocks\.(\d+)\.", name):
        return int(block[1]) + 1
    return depth + 1 if name.startswith(("norm.", "head.")) else 0


def parameter_groups(parameters: Mapping[str, nn.Parameter], spec: OptimSpec, depth: int) -> list[dict[str, Any]]:
    """Return AdamW's groups, one a layer and kind, each with its share of the rate as `scale`."""
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in parameters.items():
        layer, decays = layer_of(name, depth), parameter.ndim > 1 and name not in ("cls", "position", "time")
        # The last block learns at the full rate, as the head does.
        scale = spec.layer_decay ** max(depth - layer, 0)
        group = groups.setdefault(
            (layer, decays),
            {"params": [], "scale": scale, "lr": 0.0, "weight_decay": spec.weight_decay if decays else 0.0},
        )
        group["params"].append(parameter)
    return list(groups.values())


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of a rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def kept_shares(drop_path: float, depth: int) -> NDArray[np.float64]:
    """Return how often each block is on a clip's way, (depth,): always the first, 1 - drop_path the last but one.

    The last block is never left out, whatever stands here.
    """
    return 1 - drop_path * np.minimum(np.arange(depth) / max(depth - 2, 1), 1)


class MovingAverage:
    """An exponential moving average of weights, quicker at first: decay min(d, (1 + t) / (10 + t)) at step t."""

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.values = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, Tensor]) -> None:
        """Move towards the weights."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for name, value in self.values.items():
            value.lerp_(parameters[name].detach(), 1 - decay)
