"""A linear layer fused with its activation or residual, by the fastest matmul of the machine."""

from __future__ import annotations

import platform

import torch
import torch.nn.functional as F
from torch import Tensor

_ACTIVATIONS = {"none": lambda x: x, "gelu": F.gelu, "swish": F.silu}


class FusedLinear:
    """Compute act(x Wᵀ + b) + residual, with an activation (`gelu`, `swish`, `none`) or a residual, never both.

    `prepack()` prepares the layer for inference. On x86, in fp32 and bf16, it lays the weight out for oneDNN: torch's
    own fp32 matmul is MKL's, which on AMD processors reaches less than half of oneDNN's rate; activation and residual
    need no further pass over memory. On CUDA, in bf16 and fp16, it selects cuBLAS's matmul with GELU inside (the tanh
    form, within 5e-4 of the exact one; bf16 keeps 8 bits). torch.compile emits the same operators; a torch without
    them gets the plain matmul.
    """

    def __init__(self, weight: Tensor, bias: Tensor, act: str = "none") -> None:
        self.weight, self.bias, self.act = weight, bias, act
        self._packed: Tensor | None = None
        self._gelu_inside = False

    def prepack(self, rows: int) -> FusedLinear:
        """Prepare the layer for inference on about `rows` rows at a time; return it."""
        if can_prepack(self.weight):
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, rows)
        half = self.weight.dtype in (torch.bfloat16, torch.float16)
        self._gelu_inside = self.act == "gelu" and half and self.weight.is_cuda and hasattr(torch, "_addmm_activation")
        return self

    def to(self, device: torch.device, dtype: torch.dtype) -> FusedLinear:
        """Return this layer on another device, not prepacked."""
        return FusedLinear(self.weight.to(device, dtype), self.bias.to(device, dtype), self.act)

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return a new tensor (..., out)."""
        out: Tensor
        if self._packed is not None and residual is not None:
            out = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self._packed, self.bias, "add")
            return out
        if self._packed is not None:
            out = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, self.act, [], "none")
            return out
        if self._gelu_inside:
            out = torch._addmm_activation(self.bias, x.flatten(0, -2), self.weight.t(), use_gelu=True)
            return out.view(*x.shape[:-1], -1)
        x = F.linear(x, self.weight, self.bias)
        return _ACTIVATIONS[self.act](x) if residual is None else x + residual


def can_prepack(weight: Tensor) -> bool:
    """Return whether oneDNN's prepacked matmul is available for a weight."""
    operators = ("_linear_pointwise", "_reorder_linear_weight", "_is_mkldnn_bf16_supported")
    return (
        weight.device.type == "cpu"
        and platform.machine().lower() in ("x86_64", "amd64")
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and all(hasattr(torch.ops.mkldnn, name) for name in operators)
        and (
            weight.dtype == torch.float32
            or (weight.dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))
        )
    )
