"""Two Triton kernels: attention over frames, and LayerNorm. Triton comes with CUDA builds of torch.

Over frames the sequences are short (T from 8 to 96) and very many (tokens × heads). General kernels give each sequence
a tile of 64 or 128 rows, mostly empty; here a tile holds as many sequences as fit, separated by a mask. Queries, keys
and values are read once, in the layout of the projection, and the output is written in the layout of the next layer.
torch's LayerNorm reaches a third of an H200's memory rate on rows of 768; this one holds whole rows in registers.
"""

# Triton compiles a kernel's annotations and accepts only its own.
# ruff: noqa: ANN001, ANN202
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS = 64
_NORM_ROWS = 4


@triton.jit  # type: ignore[untyped-decorator]
def _attention(
    qkv,
    out,
    sequences,
    scale,
    T: tl.constexpr,
    SLOT: tl.constexpr,
    ROWS: tl.constexpr,
    HEADS: tl.constexpr,
    d: tl.constexpr,
):
    program = tl.program_id(0)
    head = program % HEADS
    row = tl.arange(0, ROWS)
    time, slot = row % SLOT, row // SLOT
    sequence = (program // HEADS).to(tl.int64) * (ROWS // SLOT) + slot
    column = tl.arange(0, d)
    offset = (time * sequences + sequence) * (HEADS * d) + head * d
    valid = ((time < T) & (sequence < sequences))[:, None]
    source = qkv + (3 * offset - 2 * head * d)[:, None] + column[None, :]
    q = tl.load(source, mask=valid, other=0.0)
    k = tl.load(source + HEADS * d, mask=valid, other=0.0)
    v = tl.load(source + 2 * HEADS * d, mask=valid, other=0.0)
    logits = tl.dot(q, tl.trans(k)) * scale
    same = (slot[:, None] == slot[None, :]) & (time < T)[None, :]
    logits = tl.where(same, logits, float("-inf"))
    power = tl.exp(logits - tl.max(logits, 1)[:, None])
    weight = power / tl.sum(power, 1)[:, None]
    mixed = tl.dot(weight.to(v.dtype), v)
    tl.store(out + offset[:, None] + column[None, :], mixed.to(v.dtype), mask=valid)


def attend_time_fused(qkv: Tensor, heads: int) -> Tensor:
    """Compute `attention.attend_time`: (T, B, N, 3D) -> (T, B, N, D)."""
    T, B, N, D3 = qkv.shape
    qkv = qkv.contiguous()
    out = qkv.new_empty(T, B, N, D3 // 3)
    d, slot = D3 // (3 * heads), triton.next_power_of_2(T)
    rows = max(_ROWS, slot)
    grid = (triton.cdiv(B * N, rows // slot) * heads,)
    _attention[grid](qkv, out, B * N, d**-0.5, T, slot, rows, heads, d, num_warps=4 if rows == _ROWS else 8)
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _norm(x, out, rows, eps, ROWS: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDE)
    offset = row[:, None] * D + column[None, :]
    inside = (column < D)[None, :]
    valid = (row < rows)[:, None] & inside
    values = tl.load(x + offset, mask=valid, other=0.0).to(tl.float32)
    centered = tl.where(inside, values - (tl.sum(values, 1) / D)[:, None], 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centered * centered, 1) / D + eps)
    tl.store(out + offset, (centered * scale[:, None]).to(out.dtype.element_ty), mask=valid)


def normalize_fused(x: Tensor, eps: float) -> Tensor:
    """Compute `attention.normalize` on rows (..., D), in float32 inside."""
    x = x.contiguous()
    D, out = x.shape[-1], torch.empty_like(x)
    rows = x.numel() // D
    _norm[(triton.cdiv(rows, _NORM_ROWS),)](x, out, rows, eps, _NORM_ROWS, D, triton.next_power_of_2(D), num_warps=4)
    return out


def supported(frames: int, head_width: int, dtype: torch.dtype) -> bool:
    """Return whether `attend_time_fused` supports these shapes."""
    return frames <= 128 and head_width in (16, 32, 64, 128) and dtype in (torch.bfloat16, torch.float16)
