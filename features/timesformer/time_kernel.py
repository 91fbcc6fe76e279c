"""Attention over frames as one GPU kernel; needs Triton, which CUDA builds of torch bring along.

The sequences are short (T of 8 to 96) and there are very many (tokens × heads). The general attention kernels give each
sequence a tile of 64 or 128 rows of its own, mostly empty; here a tile holds as many as fit, kept apart by a mask. It
reads queries, keys and values once, in the layout the projection leaves them in, and writes what the next one takes.
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


@triton.jit  # type: ignore[untyped-decorator]
def _kernel(
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
    """Attention of each token over the frames: (T, B, N, 3D) -> (T, B, N, D), as `forward.attend_time`."""
    T, B, N, D3 = qkv.shape
    qkv = qkv.contiguous()
    out = qkv.new_empty(T, B, N, D3 // 3)
    d, slot = D3 // (3 * heads), triton.next_power_of_2(T)
    rows = max(_ROWS, slot)
    grid = (triton.cdiv(B * N, rows // slot) * heads,)
    _kernel[grid](qkv, out, B * N, d**-0.5, T, slot, rows, heads, d, num_warps=4 if rows == _ROWS else 8)
    return out


def suits(frames: int, head_width: int, dtype: torch.dtype) -> bool:
    """Whether the kernel is made for these shapes; the rest goes to torch's own attention."""
    return frames <= 128 and head_width in (16, 32, 64, 128) and dtype in (torch.bfloat16, torch.float16)
