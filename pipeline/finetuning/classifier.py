"""TimeSformer with a classifier, divided into frozen blocks and trained blocks."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from actionvit.errors import SettingError
from actionvit.features.sampling import ClipSpec
from actionvit.features.timesformer.forward import FoldedModel, apply_block, embed_patches, run_blocks
from actionvit.features.timesformer.model import TimeSformer


def num_frozen_blocks(train: str, depth: int) -> int:
    """Return the number of frozen blocks: all for `head`, all but K for `last:K`; -1 for `all`, embeddings included.

    Raises
    ------
    ActionVitError
        If `train` is none of these, or the model has fewer than K blocks.
    """
    if train == "head":
        return depth
    if train == "all":
        return -1
    kind, _, number = train.partition(":")
    if kind != "last" or not number.isdigit():
        raise SettingError(f"train: got {train!r}, expected head, last:K or all")
    if not 1 <= int(number) <= depth:
        raise SettingError(f"train: got {train!r}, but the model has {depth} blocks; K is 1 to {depth}")
    return depth - int(number)


class Classifier(nn.Module):
    """TimeSformer and a linear layer, initialized to zero, on its clip embedding.

    Parameters
    ----------
    encoder : TimeSformer
    n_classes : int
    num_frozen : int
        As `num_frozen_blocks` returns it.
    checkpointing : bool
        Activation checkpointing: recompute blocks in the backward pass. A third more time, far less memory.
    """

    def __init__(self, encoder: TimeSformer, n_classes: int, *, num_frozen: int, checkpointing: bool = False) -> None:
        super().__init__()
        self.encoder, self.num_frozen, self.checkpointing = encoder, num_frozen, checkpointing
        self.head = nn.Linear(encoder.config.width, n_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        encoder.requires_grad_(num_frozen < 0)
        if 0 <= num_frozen < encoder.config.depth:
            encoder.blocks[num_frozen:].requires_grad_(True)
            encoder.norm.requires_grad_(True)

    @property
    def depth(self) -> int:
        """Number of blocks of the encoder."""
        return self.encoder.config.depth

    @property
    def recomputable(self) -> bool:
        """Whether checkpointing saves memory: the last block always keeps its activations."""
        return self.num_frozen < self.depth - 1

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the trainable parameters by name: the encoder's as in its weights, and the head's."""
        return {name.removeprefix("encoder."): p for name, p in self.named_parameters() if p.requires_grad}

    def logits(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return logits (B, C); always computed in fp32, where ties between classes are rare. See `embedding`."""
        embedding = self.embedding(x, keep).float()
        with torch.autocast(x.device.type, enabled=False):
            return self.head(embedding)  # type: ignore[no-any-return]

    def embedding(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return clip embeddings (B, D) of the outputs of `FrozenBlocks` for B views, or of pixels if all is trained.

        `keep`, (B, depth), implements stochastic depth (Huang et al., ECCV 2016): 0 for a block that is dropped for a
        view, 1 / keep probability otherwise. The last block is never dropped.
        """
        if self.num_frozen == self.depth:
            return x
        pixels = self.num_frozen < 0
        x = (
            embed_patches(x, self.encoder.patch_embedding(x.shape[1], x.shape[-1]))
            if pixels
            else x.transpose(0, 1).contiguous()
        )
        model = self.encoder.fold(max(self.num_frozen, 0))
        for number, block in enumerate(model.blocks[:-1], start=model.first):
            if self.checkpointing:
                y = checkpoint(apply_block, x, block, model, use_reentrant=False)[0]
            else:
                y = apply_block(x, block, model)[0]
            x = y if keep is None else x + keep[:, number, None, None] * (y - x)
        last = replace(model, blocks=model.blocks[-1:], first=self.depth - 1)
        return run_blocks(x, last).clip


class FrozenBlocks:
    """The frozen blocks, folded once: computes the tokens that are cached, or that training takes directly.

    Returns the residual stream (B, T, 1 + P, D) after the frozen blocks, the clip embedding (B, D) if all blocks are
    frozen, and the pixels unchanged if none is; in float32 on the device. On the CPU views are computed one by one, so
    that none depends on the others: cached tokens give the same bits as training without a cache.

    Parameters
    ----------
    encoder : TimeSformer
        Copied, as its trained blocks change with every step.
    spec : ClipSpec
        Frames and size of a view.
    num_frozen : int
        As `num_frozen_blocks` returns it.
    device : str
    bf16 : bool
        Compute in bfloat16 throughout.
    """

    def __init__(
        self, encoder: TimeSformer, spec: ClipSpec, num_frozen: int, device: str, *, bf16: bool = False
    ) -> None:
        self.num_frozen, self.device = num_frozen, torch.device(device)
        self.precision, self.dtype = ("bf16", torch.bfloat16) if bf16 else ("fp32", torch.float32)
        if num_frozen < 0:
            return
        tokens = spec.num_frames * (1 + (spec.size // encoder.config.patch) ** 2)
        with torch.no_grad():
            folded = encoder.fold()
            frozen = replace(folded, blocks=folded.blocks[: num_frozen or None])
            self._embedding = encoder.patch_embedding(spec.num_frames, spec.size).to(self.device, self.dtype)
            self._blocks: FoldedModel = frozen.to(self.device, self.dtype)
            if self.device.type == "cpu":
                self._embedding, self._blocks = self._embedding.prepack(), self._blocks.prepack(tokens)
        self._all_frozen = num_frozen == encoder.config.depth

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the input of the trained part."""
        pixels = pixels.to(self.device, non_blocking=True)
        if self.num_frozen < 0:
            return pixels
        parts = torch.split(pixels, 1 if self.device.type == "cpu" else len(pixels))
        return torch.cat([self._tokens(part.to(self.dtype)) for part in parts]).float()

    def _tokens(self, pixels: Tensor) -> Tensor:
        x = embed_patches(pixels, self._embedding)
        if self._all_frozen:
            return run_blocks(x, self._blocks).clip
        for block in self._blocks.blocks[: self.num_frozen]:
            x, _ = apply_block(x, block, self._blocks)
        return x.transpose(0, 1)
