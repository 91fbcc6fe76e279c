"""One linear layer with what follows it, by the fastest product this machine has for it."""

from __future__ import annotations

import platform

import torch
import torch.nn.functional as F
from torch import Tensor

_ACTIVATIONS = {"none": lambda x: x, "gelu": F.gelu, "swish": F.silu}


class Linear:
    """act(x Wᵀ + b) + residual, with an activation (`gelu`, `swish`, `none`) or a residual, never both.

    `pack()` readies the layer for inference by what the machine has. On x86, in fp32 and bf16, that is oneDNN's product
    with the weight laid out for it beforehand: torch's own fp32 product is MKL's, which on AMD's processors reaches
    less than half of what oneDNN does; activation and residual come at no further pass over memory. On CUDA, in bf16
    and fp16, it is cuBLAS's product with GELU inside (by tanh: within 5e-4 of the exact one; bf16 keeps 8 bits). Those
    operators are what torch's own compiler emits; where a torch lacks them, the plain product serves.
    """

    def __init__(self, weight: Tensor, bias: Tensor, act: str = "none") -> None:
        self.weight, self.bias, self.act = weight, bias, act
        self._packed: Tensor | None = None
        self._gelu_inside = False

    def pack(self, rows: int) -> Linear:
        """Ready the layer for inference on about `rows` rows at a time."""
        if packs(self.weight):
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, rows)
        half = self.weight.dtype in (torch.bfloat16, torch.float16)
        self._gelu_inside = self.act == "gelu" and half and self.weight.is_cuda and hasattr(torch, "_addmm_activation")
        return self

    def plain(self) -> tuple[Tensor, Tensor]:
        """Return weight (out, in) and bias (out,)."""
        return self.weight, self.bias

    def to(self, device: torch.device, dtype: torch.dtype) -> Linear:
        """Return this layer elsewhere, unpacked."""
        return Linear(self.weight.to(device, dtype), self.bias.to(device, dtype), self.act)

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return a fresh tensor (..., out)."""
        product: Tensor
        if self._packed is not None and residual is not None:
            product = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self._packed, self.bias, "add")
            return product
        if self._packed is not None:
            product = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, self.act, [], "none")
            return product
        if self._gelu_inside:
            product = torch._addmm_activation(self.bias, x.flatten(0, -2), self.weight.t(), use_gelu=True)
            return product.view(*x.shape[:-1], -1)
        x = F.linear(x, self.weight, self.bias)
        return _ACTIVATIONS[self.act](x) if residual is None else x + residual


def packs(weight: Tensor) -> bool:
    """Whether oneDNN's prepacked product is there for a weight."""
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
