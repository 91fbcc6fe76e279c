"""Baselines of the encoder's benchmarks: transformers' eager model, and a simple loop around it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import TimesformerConfig, TimesformerModel


def write_random_model(folder: Path, **config: int) -> None:
    """Write a transformers model with random non-zero weights as a Hugging Face folder."""
    torch.manual_seed(0)
    model = TimesformerModel(TimesformerConfig(**config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    model.save_pretrained(folder)


def plain_loop(
    paths: Sequence[Path], model: TimesformerModel, device: str, *, autocast: bool = False
) -> tuple[np.ndarray, float]:
    """Embed one clip at a time: decord, uniform frames, resize, crop, normalize, eager model; return seconds, too."""
    import decord

    T, S = model.config.num_frames, model.config.image_size
    outputs = []
    wait(device)
    began = time.perf_counter()
    for path in paths:
        reader = decord.VideoReader(str(path), num_threads=1)
        last = len(reader) - 1
        try:
            frames = reader.get_batch(np.linspace(0, last, T).round().astype(int)).asnumpy()
        except decord.DECORDError:  # the header declares too many frames, as in all of HMDB51
            frames = reader.get_batch(np.linspace(0, last - 8, T).round().astype(int)).asnumpy()
        x = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
        scale = S / min(x.shape[2:])
        x = F.interpolate(x, size=[round(side * scale) for side in x.shape[2:]], mode="bilinear", antialias=True)
        top, first = (x.shape[2] - S) // 2, (x.shape[3] - S) // 2
        x = (x[:, :, top : top + S, first : first + S] - 0.45) / 0.225
        with torch.inference_mode(), torch.autocast(torch.device(device).type, torch.bfloat16, enabled=autocast):
            outputs.append(model(x[None].to(device)).last_hidden_state[0, 0].float().cpu().numpy())
    return np.stack(outputs), time.perf_counter() - began


def wait(device: str) -> None:
    """Wait until a GPU has completed all queued work."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
