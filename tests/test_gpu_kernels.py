"""The GPU's kernels, attention over frames and LayerNorm: in Triton's interpreter, where Triton is, and on a GPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

SHAPES = [(8, 2, 5, 3, 64), (16, 1, 13, 2, 32), (7, 1, 9, 2, 16), (96, 1, 3, 2, 64), (1, 1, 4, 1, 16)]

triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed here")


@triton
@pytest.mark.filterwarnings("ignore")
def test_the_kernels_compute_in_tritons_interpreter() -> None:
    """In fp16 and fp32: the interpreter does not support bf16."""
    code = f"""
import torch
from actionvit.features.timesformer.attention import attend_time_torch, normalize
from actionvit.features.timesformer.gpu_kernels import attend_time_fused, normalize_fused
torch.manual_seed(0)
for dtype, most in ((torch.float16, 5e-3), (torch.float32, 1e-5)):
    for T, B, N, H, d in {SHAPES}:
        qkv = torch.randn(T, B, N, 3 * H * d).to(dtype)
        difference = (attend_time_fused(qkv, H).float() - attend_time_torch(qkv.float(), H)).abs().max().item()
        assert difference <= most, (dtype, T, N, difference)
        x = 3 * torch.randn(T, B, N, H * d).to(dtype) + 1
        difference = (normalize_fused(x, 1e-6).float() - normalize(x.float(), 1e-6)).abs().max().item()
        assert difference <= most, (dtype, x.shape, difference)
"""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@triton
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_kernels_agree_with_torch_on_a_gpu(dtype: torch.dtype) -> None:
    from actionvit.features.timesformer.attention import attend_time_torch, normalize
    from actionvit.features.timesformer.gpu_kernels import attend_time_fused, normalize_fused

    for T, B, N, H, d in SHAPES:
        qkv = torch.randn(T, B, N, 3 * H * d, device="cuda", dtype=dtype)
        right = attend_time_torch(qkv.float(), H)
        assert (attend_time_fused(qkv, H).float() - right).abs().max() <= 2e-2
        x = 3 * torch.randn(T, B, N, H * d, device="cuda", dtype=dtype) + 1
        assert (normalize_fused(x, 1e-6).float() - normalize(x.float(), 1e-6)).abs().max() <= 2e-2
