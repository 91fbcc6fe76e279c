"""Frames in, embeddings out: weights, sampling, precision and device bound together."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actionvit.errors import ActionVitError
from actionvit.features.clips import ClipSpec, clip_indices
from actionvit.features.forward import Embedding, embed, run
from actionvit.features.frames import Frames
from actionvit.features.outputs import FramePool, Precision, quantities, resolve
from actionvit.features.timesformer import TimeSformer
from actionvit.features.transforms import views
from actionvit.features.weights import Weights

log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Enough tokens in a batch to fill a large GPU's products; more only costs memory.
_TOKENS_A_BATCH = 200_000


@dataclass(frozen=True, slots=True)
class _Started:
    """Videos whose work is queued on the device."""

    indices: list[NDArray[np.int64]]
    given: Embedding


class Encoder:
    """A TimeSformer that takes decoded frames.

    On the CPU every video is computed by itself, so that its numbers never depend on its neighbours'. On a GPU
    `encode_many` batches across videos.
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
        self.weights, self.spec, self.frame_pool = weights, spec, frame_pool
        self.layers, self.tokens_after = tuple(sorted(set(layers))), tokens_after
        self.quantities = quantities(weights.shape, spec, layers=layers, tokens_after=tokens_after)
        place, self.precision = resolve(device, precision)
        self.device, self.dtype = torch.device(place), DTYPES[self.precision]
        tokens = spec.num_frames * (1 + (spec.size // weights.shape.patch) ** 2)
        self.batch_views = max(1, _TOKENS_A_BATCH // tokens)
        with torch.inference_mode():
            model = _model(weights)
            self._stem = model.stem(spec.num_frames, spec.size).to(self.device, self.dtype).pack()
            self._blocks = model.fold().to(self.device, self.dtype).pack(tokens)
        self._compute = torch.compile(self._forward, dynamic=False) if compile else self._forward

    @property
    def batch_videos(self) -> int:
        """Videos worth handing to `encode_many` at once: 1 on the CPU, a device batch or two on a GPU."""
        return 1 if self.device.type == "cpu" else max(1, 2 * self.batch_views // self.spec.views)

    def encode(self, frames: Frames) -> Arrays:
        """Return `quantities` for one video, whose frames hold at least those that `clip_indices` asks for."""
        return next(iter(self.encode_many([frames])))

    def encode_many(self, videos: Sequence[Frames]) -> list[Arrays]:
        """Return `quantities` for each video, in order.

        Raises
        ------
        ActionVitError
            If one view does not fit into the device's memory.
        """
        done: list[Arrays] = []
        rest = list(videos)
        waiting: _Started | None = None
        while rest or waiting:
            started = self._start_some(rest) if rest else None
            if waiting:  # the next batch is on its way while this one is waited for
                done.extend(self._finish(waiting))
            waiting = started
        return done

    def _start_some(self, rest: list[Frames]) -> _Started:
        """Queue as many of the first videos as make a batch, and take them off the list; fewer if memory says so."""
        while True:
            count = 1 if self.device.type == "cpu" else max(1, self.batch_views // self.spec.views)
            try:
                started = self._start(rest[:count])
            except torch.OutOfMemoryError as error:
                if self.batch_views <= 1:
                    raise ActionVitError(
                        f"one view of {self.spec.num_frames} × {self.spec.size} pixels does not fit into the memory of"
                        f" {self.device}; use --precision bf16, fewer --frames, or --device cpu"
                    ) from error
                self.batch_views = max(1, min(self.batch_views, len(rest) * self.spec.views) // 2)
                log.warning("out of memory on %s: going on with %d views a batch", self.device, self.batch_views)
                torch.cuda.empty_cache()
            else:
                del rest[:count]
                return started

    def _start(self, videos: Sequence[Frames]) -> _Started:
        indices = [clip_indices(frames.count, self.spec) for frames in videos]
        with torch.inference_mode():
            pixels = torch.cat([self._pixels(frames, index) for frames, index in zip(videos, indices, strict=True)])
            parts = [self._compute(part) for part in torch.split(pixels, self.batch_views)]
        return _Started(indices, parts[0] if len(parts) == 1 else _joined(parts))

    def _pixels(self, frames: Frames, index: NDArray[np.int64]) -> Tensor:
        used, positions = np.unique(frames.positions(index), return_inverse=True)
        whole = len(used) == len(frames.data)
        data = torch.from_numpy(np.ascontiguousarray(frames.data if whole else frames.data[used]))
        if self.device.type == "cuda":
            data = data.pin_memory().to(self.device, non_blocking=True)
        else:
            data = data.to(self.device)
        rows = torch.from_numpy(positions.reshape(index.shape))
        return views(data, rows, self.spec, self.weights.mean, self.weights.std, self.dtype)

    def _forward(self, pixels: Tensor) -> Embedding:
        return run(
            embed(pixels, self._stem),
            self._blocks,
            mean_pool=self.frame_pool == "mean",
            layers=self.layers,
            tokens_after=self.tokens_after,
        )

    def _finish(self, started: _Started) -> Iterator[Arrays]:
        given, K = started.given, self.spec.views
        arrays: Arrays = {"clip": _host(given.clip), "frame": _host(given.frame)}
        arrays |= {f"layer{layer}": _host(cls) for layer, cls in given.layers.items()}
        if given.tokens is not None:
            arrays[f"tokens{self.tokens_after}"] = given.tokens.to(torch.float16).contiguous().cpu().numpy()
        for video, index in enumerate(started.indices):
            rows = {name: array[video * K : (video + 1) * K] for name, array in arrays.items()}
            yield {name: rows[name] if name != "index" else index.astype(np.int32) for name in self.quantities}


def _model(weights: Weights) -> TimeSformer:
    """Return the model with its weights, without drawing random ones first."""
    tensors = {name: tensor for name, tensor in weights.load().items() if not name.startswith("head.")}
    with torch.device("meta"):
        model = TimeSformer(weights.shape)
    model.load_state_dict(tensors, assign=True)
    return model.eval().requires_grad_(False)


def _host(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.float().contiguous().cpu().numpy()
    return array


def _joined(parts: Sequence[Embedding]) -> Embedding:
    tokens = [part.tokens for part in parts if part.tokens is not None]
    return Embedding(
        torch.cat([part.clip for part in parts]),
        torch.cat([part.frame for part in parts]),
        {layer: torch.cat([part.layers[layer] for part in parts]) for layer in parts[0].layers},
        torch.cat(tokens) if tokens else None,
    )
