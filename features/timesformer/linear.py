"""One linear layer with what follows it, by the fastest product this machine has for it."""

from __future__ import annotations

import platform

import torch
import torch.nn.functional as F
from torch import Tensor

_ACTIVATIONS = {"none": lambda x: x, "gelu": F.gelu, "swish": F.silu}


class Linear:
    """act(x Wᵀ + b) + residual, with an activation (`gelu`, `swish`, `none`) or a residual, never both.

    `pack()` hands the product to oneDNN with the weight laid out for it beforehand, where that exists: fp32 and bf16 on
    x86. torch's own fp32 product is MKL's, which on AMD's processors reaches less than half of what oneDNN does;
    activation and residual come at no further pass over memory. Those operators are what torch's own compiler emits;
    where a torch lacks them, the plain product serves.
    """

    def __init__(self, weight: Tensor, bias: Tensor, act: str = "none") -> None:
        self.weight, self.bias, self.act = weight, bias, act
        self._packed: Tensor | None = None

    def pack(self, rows: int) -> Linear:
        """Lay the weight out for products of about `rows` rows; nothing happens where oneDNN has no part in it."""
        if packs(self.weight):
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, rows)
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
