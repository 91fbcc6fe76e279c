"""transformers' TimeSformer as the reference: random weights, none zero, and all its hidden states."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel, TimesformerConfig, TimesformerModel

from actionvit.features.decoding import Frames
from actionvit.features.timesformer.checkpoint import find_weights
from actionvit.features.timesformer.model import TimeSformer

SMALL = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128}


def reference(folder: Path, *, spread: float = 0.05, **config: object) -> TimesformerModel:
    """Write a random TimeSformer with no zero in it as a Hugging Face folder, and return it."""
    torch.manual_seed(0)
    model = TimesformerModel(TimesformerConfig(**config)).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * spread)
    model.save_pretrained(folder)
    return model


def clip_folder(folder: Path) -> CLIPVisionModel:
    """Write a small random CLIP vision tower as a Hugging Face folder, and return it."""
    torch.manual_seed(1)
    config = CLIPVisionConfig(**SMALL, image_size=32, patch_size=16)
    model = CLIPVisionModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    return model


def own(folder: Path) -> TimeSformer:
    weights = find_weights("base", folder)
    model = TimeSformer(weights.config)
    model.load_state_dict(weights.load())
    return model.eval()


@dataclass
class Expected:
    """Outputs of transformers for pixels (B, T, 3, S, S), in our layout."""

    clip: Tensor
    """(B, D)"""
    frame: Tensor
    """(B, T, D): each frame's CLS of the last block before their mean, through its MLP and the final norm."""
    mean: Tensor
    """(B, T, D): the mean patch token of each frame after the final norm."""
    layers: list[Tensor]
    """(B, D) each: the CLS token before the first block and after each."""
    tokens: list[Tensor]
    """(B, T, 1 + P, D) each: the whole stream before the first block and after each."""


def expected(model: TimesformerModel, pixels: Tensor) -> Expected:
    """Run transformers' model and split up its hidden states, independently of our forward pass."""
    B, T = pixels.shape[:2]
    last, residuals = model.encoder.layer[-1], []
    hook = last.attention.register_forward_hook(lambda module, args, output: residuals.append(output[0]))
    with torch.inference_mode():
        given = model(pixels, output_hidden_states=True)
        hook.remove()
        states = given.hidden_states
        D = states[0].shape[-1]
        # The last block's spatial attention saw (B·T) sequences that begin with the CLS token.
        frames = states[-2][:, :1] + residuals[0][:, 0].view(B, T, D)
        frames = frames + last.output(last.intermediate(last.layernorm_after(frames)))
        patches = [state[:, 1:].view(B, -1, T, D).transpose(1, 2) for state in states]  # theirs lie (P, T)
        final = model.layernorm(patches[-1])
        tokens = [
            torch.cat([state[:, None, :1].expand(B, T, 1, D), rest], 2)
            for state, rest in zip(states, patches, strict=True)
        ]
        layers = [state[:, 0] for state in states]
        return Expected(given.last_hidden_state[:, 0], model.layernorm(frames), final.mean(2), layers, tokens)


def cosine(a: Tensor | NDArray[np.float32], b: Tensor | NDArray[np.float32]) -> float:
    """Return the least cosine of two arrays' rows (..., D)."""
    a, b = torch.as_tensor(a).double(), torch.as_tensor(b).double()
    return torch.nn.functional.cosine_similarity(a, b, dim=-1).min().item()


def noise(count: int, height: int = 60, width: int = 80) -> Frames:
    """Return the same random frames every time."""
    data = np.random.RandomState(3).randint(0, 256, (count, height, width, 3)).astype(np.uint8)
    return Frames(data=data, index=np.arange(count), count=count, backend="pyav")
