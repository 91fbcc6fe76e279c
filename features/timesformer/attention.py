"""Attention over the frames of a token, and over the tokens of a frame, in one memory layout.

Shape letters: T frames, B views, N tokens a frame, D width, d = D / heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# CUDA's attention kernels put the batch into a grid dimension of 65,535.
_MAX_SEQUENCES = 32768
# Up to so many frames the CPU's attention kernel, made for long sequences, loses to two batched products.
_SHORT = 32


def attend_time(qkv: Tensor, heads: int) -> Tensor:
    """Attention of each token over the frames: (T, B, N, 3D) -> (T, B, N, D)."""
    T, B, N, D3 = qkv.shape
    q, k, v = qkv.view(T, B * N, 3, heads, D3 // (3 * heads)).permute(2, 1, 3, 0, 4)  # 3 × (B·N, H, T, d)
    if qkv.device.type == "cpu" and T <= _SHORT:
        out = torch.matmul((q @ k.transpose(-1, -2)).mul_(q.shape[-1] ** -0.5).softmax(-1), v)
    elif B * N > _MAX_SEQUENCES:
        parts = zip(q.split(_MAX_SEQUENCES), k.split(_MAX_SEQUENCES), v.split(_MAX_SEQUENCES), strict=True)
        out = torch.cat([F.scaled_dot_product_attention(*part) for part in parts])
    else:
        out = F.scaled_dot_product_attention(q, k, v)
    return out.permute(2, 0, 1, 3).reshape(T, B, N, D3 // 3)


def attend_space(qkv: Tensor, heads: int) -> Tensor:
    """Attention within each frame: (T, B, N, 3D) -> (T, B, N, D)."""
    T, B, N, D3 = qkv.shape
    q, k, v = qkv.view(T * B, N, 3, heads, D3 // (3 * heads)).permute(2, 0, 3, 1, 4)  # 3 × (T·B, H, N, d)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(T, B, N, D3 // 3)
