"""An encoder with a classifier on top, cut in two: blocks that stay as they are, and blocks that are trained."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from actionvit.errors import ActionVitError
from actionvit.features.sampling import ClipSpec
from actionvit.features.timesformer.folded import Folded
from actionvit.features.timesformer.forward import embed, full_block, run
from actionvit.features.timesformer.model import TimeSformer


def first_trained(train: str, depth: int) -> int:
    """Return how many blocks stay frozen: all for `head`, all but K for `last:K`, -1 for `all`, embeddings included.

    Raises
    ------
    ActionVitError
        If it is none of these, or the model has fewer than K blocks.
    """
    if train == "head":
        return depth
    if train == "all":
        return -1
    kind, _, number = train.partition(":")
    if kind != "last" or not number.isdigit():
        raise ActionVitError(f"--train: got {train!r}, expected head, last:K or all")
    if not 1 <= int(number) <= depth:
        raise ActionVitError(f"--train {train}: the model has {depth} blocks; K is 1 to {depth}")
    return depth - int(number)


class Classifier(nn.Module):
    """TimeSformer and a linear layer on its clip embedding.

    Parameters
    ----------
    encoder : TimeSformer
    n_classes : int
    first : int
        As `first_trained` gives it.
    checkpointing : bool
        Recompute blocks on the way back instead of keeping what they computed: a third more time, far less memory.
    """

    def __init__(self, encoder: TimeSformer, n_classes: int, *, first: int, checkpointing: bool = False) -> None:
        super().__init__()
        self.encoder, self.first, self.checkpointing = encoder, first, checkpointing
        self.head = nn.Linear(encoder.shape.width, n_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        encoder.requires_grad_(first < 0)
        if 0 <= first < encoder.shape.depth:
            encoder.blocks[first:].requires_grad_(True)
            encoder.norm.requires_grad_(True)

    @property
    def depth(self) -> int:
        """Blocks of the encoder."""
        return self.encoder.shape.depth

    @property
    def recomputable(self) -> bool:
        """Whether checkpointing would save anything: the last block keeps what it computed in any case."""
        return self.first < self.depth - 1

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the parameters that training changes, by name: the encoder's as in its weights, and the head's."""
        return {name.removeprefix("encoder."): p for name, p in self.named_parameters() if p.requires_grad}

    def logits(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return logits (B, C), in fp32 whatever the products are in: two classes are seldom equal; see `embedding`."""
        embedding = self.embedding(x, keep).float()
        with torch.autocast(x.device.type, enabled=False):
            return self.head(embedding)  # type: ignore[no-any-return]

    def embedding(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return clip embeddings (B, D) of what `Frozen` gives for B views, or of pixels if all is trained.

        `keep`, (B, depth), holds 0 for a block that is left out of a view's way and 1 / share kept for one that is not
        (stochastic depth, Huang et al., ECCV 2016); the last block is never left out.
        """
        if self.first == self.depth:
            return x
        pixels = self.first < 0
        x = embed(x, self.encoder.stem(x.shape[1], x.shape[-1])) if pixels else x.transpose(0, 1).contiguous()
        model = self.encoder.fold(max(self.first, 0))
        for number, block in enumerate(model.blocks[:-1], start=model.first):
            if self.checkpointing:
                y = checkpoint(full_block, x, block, model, use_reentrant=False)[0]
            else:
                y = full_block(x, block, model)[0]
            x = y if keep is None else x + keep[:, number, None, None] * (y - x)
        last = replace(model, blocks=model.blocks[-1:], first=self.depth - 1)
        return run(x, last).clip


class Frozen:
    """The blocks below `first`, folded once: what a cache of tokens holds, and what training through them computes.

    Returns the residual stream (B, T, 1 + P, D) after `first` blocks, the clip embedding (B, D) where all blocks are
    frozen, and the pixels untouched where none is; in float32 on the device, whatever was computed in. On the CPU views
    are computed one by one, so that none depends on the others: a cache gives the very bits of training without it.

    Parameters
    ----------
    encoder : TimeSformer
        Copied: the trained blocks change with every step, and these must not follow them.
    spec : ClipSpec
        Frames and size of a view.
    first : int
        As `first_trained` gives it.
    device : str
    bf16 : bool
        Compute in bfloat16 throughout.
    """

    def __init__(self, encoder: TimeSformer, spec: ClipSpec, first: int, device: str, *, bf16: bool = False) -> None:
        self.first, self.device = first, torch.device(device)
        self.precision, self.dtype = ("bf16", torch.bfloat16) if bf16 else ("fp32", torch.float32)
        if first < 0:
            return
        tokens = spec.num_frames * (1 + (spec.size // encoder.shape.patch) ** 2)
        with torch.no_grad():
            whole = encoder.fold()
            used = replace(whole, blocks=whole.blocks[: first or None])
            self._stem = encoder.stem(spec.num_frames, spec.size).to(self.device, self.dtype)
            self._blocks: Folded = used.to(self.device, self.dtype)
            if self.device.type == "cpu":
                self._stem, self._blocks = self._stem.pack(), self._blocks.pack(tokens)
        self._whole = first == encoder.shape.depth

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Return what the trained part takes in."""
        pixels = pixels.to(self.device, non_blocking=True)
        if self.first < 0:
            return pixels
        parts = torch.split(pixels, 1 if self.device.type == "cpu" else len(pixels))
        return torch.cat([self._tokens(part.to(self.dtype)) for part in parts]).float()

    def _tokens(self, pixels: Tensor) -> Tensor:
        x = embed(pixels, self._stem)
        if self._whole:
            return run(x, self._blocks).clip
        for block in self._blocks.blocks[: self.first]:
            x, _ = full_block(x, block, self._blocks)
        return x.transpose(0, 1)
