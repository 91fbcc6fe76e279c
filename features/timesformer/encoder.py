"""TimeSformer on a device: weights, sampling, precision and outputs bound together."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from actionvit.features.batching import DTYPES, BatchedEncoder, Forward
from actionvit.features.device import Precision
from actionvit.features.sampling import ClipSpec
from actionvit.features.timesformer.checkpoint import Weights
from actionvit.features.timesformer.forward import EncoderOutput, embed_patches, run_blocks
from actionvit.features.timesformer.model import load_timesformer
from actionvit.features.timesformer.outputs import FramePool, output_spec

__all__ = ["DTYPES", "Encoder"]


class Encoder(BatchedEncoder):
    """A TimeSformer that encodes decoded frames.

    Parameters
    ----------
    weights, spec : Weights, ClipSpec
        The model, and the views it sees.
    precision : str
        Number format of weights and residual stream; `auto` is bf16 on GPUs that compute in it, otherwise fp32.
    device : str
        `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
    frame_pool : str
        `frame` is each frame's CLS token (`cls`) or its mean patch token (`mean`).
    layers : collection of int
        Blocks, counted from 1, whose CLS token becomes an array `layerN`.
    tokens_after : int, optional
        Number of blocks after which all tokens become an array `tokensN`, in float16.
    compile : bool
        Build the forward with `torch.compile`: takes minutes to start and rounds differently, as the key records.

    Raises
    ------
    ActionVitError
        If the weights do not load, or the device or a setting is not supported.
    """

    def __init__(
        self,
        weights: Weights,
        spec: ClipSpec,
        *,
        precision: Precision = "auto",
        device: str = "auto",
        frame_pool: FramePool = "cls",
        layers: Collection[int] = (),
        tokens_after: int | None = None,
        compile: bool = False,
    ) -> None:
        self.weights, self.frame_pool, self.tokens_after = weights, frame_pool, tokens_after
        self.layers = tuple(sorted(set(layers)))
        config = weights.config
        tokens = spec.num_frames * (1 + (spec.size // config.patch) ** 2)
        super().__init__(
            spec,
            (weights.mean, weights.std),
            output_spec(config, spec, layers=layers, tokens_after=tokens_after),
            self._load,
            tokens=tokens,
            # At its widest a block holds the stream, a copy, and the MLP's hidden layer twice.
            view_values=tokens * (2 * config.width + 2 * config.mlp),
            precision=precision,
            device=device,
            fixed_batch=compile,
        )

    def _load(self, device: torch.device, dtype: torch.dtype) -> Forward:
        spec, model = self.spec, load_timesformer(self.weights).eval().requires_grad_(False)
        embedding = model.patch_embedding(spec.num_frames, spec.size).to(device, dtype)
        blocks = model.fold().to(device, dtype)
        if self.fixed_batch:  # the compiler chooses and lays out its own matmuls
            self._embedding, self._blocks = embedding, blocks
            self._compute = torch.compile(self._run, dynamic=False)
        else:
            tokens = spec.num_frames * (1 + embedding.side**2)
            self._embedding, self._blocks = embedding.prepack(), blocks.prepack(tokens)
            self._compute = self._run
        return self._embed_views

    def forward(self, pixels: Tensor) -> EncoderOutput:
        """Embed normalized views (B, T, 3, S, S) on the encoder's device, in its `dtype`; asynchronous on a GPU."""
        with self._device_context():
            return self._compute(pixels)

    def _run(self, pixels: Tensor) -> EncoderOutput:
        return run_blocks(
            embed_patches(pixels, self._embedding),
            self._blocks,
            mean_pool=self.frame_pool == "mean",
            layers=self.layers,
            tokens_after=self.tokens_after,
        )

    def _embed_views(self, pixels: Tensor) -> dict[str, Tensor]:
        output = self._compute(pixels)
        arrays = {"clip": output.clip.float(), "frame": output.frame.float()}
        arrays |= {f"layer{layer}": cls.float() for layer, cls in output.layers.items()}
        if output.tokens is not None:
            arrays[f"tokens{self.tokens_after}"] = output.tokens.to(torch.float16)
        return arrays
