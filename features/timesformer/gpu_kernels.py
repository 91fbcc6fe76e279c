"""Two GPU kernels of our own: attention over frames and LayerNorm; they need Triton, which CUDA builds of torch bring.

Over frames the sequences are short (T of 8 to 96) and there are very many (tokens × heads). The general kernels give
each of them a tile of 64 or 128 rows, mostly empty; here a tile holds as many as fit, kept apart by a mask. It reads
queries, keys and values once, in the layout the projection leaves them in, and writes what the next one takes.
torch's LayerNorm reaches a third of an H200's memory rate on rows of 768; this one holds whole rows in registers.
"""

# Triton compiles a kernel's annotations with it, and knows its own only.
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
    at = (time * sequences + sequence) * (HEADS * d) + head * d
    whole = ((time < T) & (sequence < sequences))[:, None]
    source = qkv + (3 * at - 2 * head * d)[:, None] + column[None, :]
    q = tl.load(source, mask=whole, other=0.0)
    k = tl.load(source + HEADS * d, mask=whole, other=0.0)
    v = tl.load(source + 2 * HEADS * d, mask=whole, other=0.0)
    logits = tl.dot(q, tl.trans(k)) * scale
    seen = (slot[:, None] == slot[None, :]) & (time < T)[None, :]
    logits = tl.where(seen, logits, float("-inf"))
    power = tl.exp(logits - tl.max(logits, 1)[:, None])
    share = power / tl.sum(power, 1)[:, None]
    mixed = tl.dot(share.to(v.dtype), v)
    tl.store(out + at[:, None] + column[None, :], mixed.to(v.dtype), mask=whole)


def attend_time_fused(qkv: Tensor, heads: int) -> Tensor:
    """Attention of each token over the frames: (T, B, N, 3D) -> (T, B, N, D), as `attention.attend_time`."""
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
    at = row[:, None] * D + column[None, :]
    inside = (column < D)[None, :]
    whole = (row < rows)[:, None] & inside
    values = tl.load(x + at, mask=whole, other=0.0).to(tl.float32)
    off = tl.where(inside, values - (tl.sum(values, 1) / D)[:, None], 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(off * off, 1) / D + eps)
    tl.store(out + at, (off * scale[:, None]).to(out.dtype.element_ty), mask=whole)


def normalise_fused(x: Tensor, eps: float) -> Tensor:
    """LayerNorm of each row (..., D), without scale and shift, in float32 inside: as `folded.normalise`."""
    x = x.contiguous()
    D, out = x.shape[-1], torch.empty_like(x)
    rows = x.numel() // D
    _norm[(triton.cdiv(rows, _NORM_ROWS),)](x, out, rows, eps, _NORM_ROWS, D, triton.next_power_of_2(D), num_warps=4)
    return out


def suits(frames: int, head_width: int, dtype: torch.dtype) -> bool:
    """Whether `attend_time_fused` is made for these shapes; the rest goes to torch's own attention."""
    return frames <= 128 and head_width in (16, 32, 64, 128) and dtype in (torch.bfloat16, torch.float16)
