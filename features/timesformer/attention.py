"""Attention over time and over space, and LayerNorm, each by the fastest kernel for its device.

Shape letters: T frames, B views, N tokens per frame, D width, d = D / heads.
"""

from __future__ import annotations

import logging
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

logger = logging.getLogger(__name__)

# CUDA's attention kernels put the batch into a grid dimension of 65,535.
_MAX_SEQUENCES = 32768
# Up to this many frames, two batched matmuls beat the CPU's fused attention, which is tuned for long sequences.
_SHORT = 32


def attend_time(qkv: Tensor, heads: int) -> Tensor:
    """Attend from each token to its position in all frames: (T, B, N, 3D) -> (T, B, N, D)."""
    T, head_width = len(qkv), qkv.shape[-1] // (3 * heads)
    if _use_own_kernels(qkv) and _attention_kernel_works(qkv.device, qkv.dtype, T, heads, head_width):
        from actionvit.features.timesformer.gpu_kernels import attend_time_fused

        return attend_time_fused(qkv, heads)
    return attend_time_torch(qkv, heads)


def attend_time_torch(qkv: Tensor, heads: int) -> Tensor:
    """Compute `attend_time` with torch's own operators."""
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
    """Attend within each frame: (T, B, N, 3D) -> (T, B, N, D)."""
    T, B, N, D3 = qkv.shape
    q, k, v = qkv.view(T * B, N, 3, heads, D3 // (3 * heads)).permute(2, 0, 3, 1, 4)  # 3 × (T·B, H, N, d)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(T, B, N, D3 // 3)


def normalize(x: Tensor, eps: float) -> Tensor:
    """Apply LayerNorm to each row (..., D) without scale and shift, which the following linear layer contains."""
    if _use_own_kernels(x) and _norm_kernel_works(x.device, x.dtype, x.shape[-1]):
        from actionvit.features.timesformer.gpu_kernels import normalize_fused

        return normalize_fused(x, eps)
    return F.layer_norm(x, x.shape[-1:], eps=eps)


def _use_own_kernels(x: Tensor) -> bool:
    """Return whether the GPU kernels apply: they have no backward, and torch.compile writes its own."""
    return x.is_cuda and not torch.compiler.is_compiling() and torch.is_inference_mode_enabled()


@lru_cache(maxsize=64)
def _attention_kernel_works(device: torch.device, dtype: torch.dtype, frames: int, heads: int, head_width: int) -> bool:
    """Return whether the attention kernel supports these shapes, compiles, and agrees with torch."""
    try:
        from actionvit.features.timesformer.gpu_kernels import attend_time_fused, supported

        if not supported(frames, head_width, dtype):
            return False
        qkv = torch.randn(frames, 2, 5, 3 * heads * head_width, device=device, dtype=dtype)
        return _agrees("attention over frames", attend_time_fused(qkv, heads), attend_time_torch(qkv, heads))
    except Exception as error:  # Triton is missing, or raises one of its many errors
        return _unavailable(device, error)


@lru_cache(maxsize=64)
def _norm_kernel_works(device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Return whether the LayerNorm kernel compiles and agrees with torch."""
    try:
        from actionvit.features.timesformer.gpu_kernels import normalize_fused

        x = torch.randn(7, width, device=device, dtype=dtype)
        return _agrees("LayerNorm", normalize_fused(x, 1e-6), F.layer_norm(x, x.shape[-1:], eps=1e-6))
    except Exception as error:  # as above
        return _unavailable(device, error)


def _unavailable(device: torch.device, error: Exception) -> bool:
    logger.warning("GPU kernels unavailable on %s (%s): using torch's", device, type(error).__name__)
    return False


def _agrees(name: str, result: Tensor, reference: Tensor) -> bool:
    difference = (result - reference).abs().max().item()
    if not difference < 0.05:
        logger.warning("the GPU kernel for %s is off by %g on %s: using torch's", name, difference, result.device)
        return False
    return True
