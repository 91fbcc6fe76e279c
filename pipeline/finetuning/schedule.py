"""Learning-rate schedule, layer-wise rates, weight decay groups, stochastic depth and EMA of the weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from actionvit.pipeline.finetuning.spec import OptimSpec


def lr_factor(step: int, steps: int, warmup: float) -> float:
    """Return the learning rate at a step, relative to its peak: linear warm-up, then half a cosine down to 0."""
    warmup_steps = max(1, round(warmup * steps)) if warmup else 0
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


def layer_of(name: str, depth: int) -> int:
    """Return a parameter's layer: 0 for the embeddings, 1 to depth for blocks, depth + 1 for final norm and head."""
    if block := re.match(r"blocks\.(\d+)\.", name):
        return int(block[1]) + 1
    return depth + 1 if name.startswith(("norm.", "head.")) else 0


def parameter_groups(parameters: Mapping[str, nn.Parameter], spec: OptimSpec, depth: int) -> list[dict[str, Any]]:
    """Return AdamW's parameter groups, one per layer and kind, each with its relative learning rate as `scale`.

    Parameters
    ----------
    parameters : mapping of str to Parameter
        The trained parameters by name.
    spec : OptimSpec
        Gives `layer_decay` and `weight_decay`.
    depth : int
        Number of blocks of the model.
    """
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in parameters.items():
        layer, decays = layer_of(name, depth), parameter.ndim > 1 and name not in ("cls", "position", "time")
        # The last block has the full rate, as the head does.
        scale = spec.layer_decay ** max(depth - layer, 0)
        group = groups.setdefault(
            (layer, decays),
            {"params": [], "scale": scale, "lr": 0.0, "weight_decay": spec.weight_decay if decays else 0.0},
        )
        group["params"].append(parameter)
    return list(groups.values())


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group to `lr` times its scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]


def drop_path_keep_probs(drop_path: float, depth: int) -> NDArray[np.float64]:
    """Return the probability to keep each block, (depth,): 1 for the first, 1 - drop_path for the last but one.

    The value for the last block is not used: it is never dropped.
    """
    return 1 - drop_path * np.minimum(np.arange(depth) / max(depth - 2, 1), 1)


class EMA:
    """Exponential moving average of weights, with decay min(d, (1 + t) / (10 + t)) at step t."""

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.values = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, Tensor]) -> None:
        """Move the average towards the current weights."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for name, value in self.values.items():
            value.lerp_(parameters[name].detach(), 1 - decay)
