"""Frames in, embeddings out: weights, sampling, precision and device bound together."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actionvit.errors import ActionVitError
from actionvit.features.decoding.frames import Frames
from actionvit.features.sampling import ClipSpec, clip_indices
from actionvit.features.timesformer.attention import attend_time
from actionvit.features.timesformer.checkpoint import Weights
from actionvit.features.timesformer.folded import Folded, normalise
from actionvit.features.timesformer.forward import Embedding, embed, run
from actionvit.features.timesformer.model import pretrained
from actionvit.features.timesformer.outputs import FramePool, Precision, encoder_key, quantities, resolve
from actionvit.features.timesformer.preprocess import Feed
from actionvit.features.timesformer.timers import Phases

log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Enough tokens in a batch to fill the device's products; more only costs memory.
_TOKENS_A_BATCH = {"cpu": 4096, "cuda": 200_000, "mps": 20_000}
_MOST_FRAMES = 65_535
"""Frames in a batch: as many sequences as CUDA's attention takes at once."""


@dataclass(frozen=True, slots=True)
class _Started:
    """Videos whose work is queued on the device, down to the copies of its results."""

    indices: list[NDArray[np.int64]]
    arrays: dict[str, Tensor]
    """In host memory; filled when `done` has happened."""
    done: torch.cuda.Event | None


@dataclass(frozen=True, slots=True)
class Pending:
    """Videos that were handed to an encoder."""

    parts: list[_Started]
    quantities: Collection[str]

    @property
    def ready(self) -> bool:
        """Whether `result` would return at once."""
        return all(part.done is None or part.done.query() for part in self.parts)  # type: ignore[no-untyped-call]

    def result(self) -> list[Arrays]:
        """Return each video's quantities, in order, waiting for the device."""
        return [rows for part in self.parts for rows in self._rows(part)]

    def _rows(self, part: _Started) -> Iterator[Arrays]:
        if part.done:
            part.done.synchronize()
        arrays = {name: tensor.contiguous().numpy() for name, tensor in part.arrays.items()}
        first = 0
        for index in part.indices:
            rows = {name: array[first : first + len(index)] for name, array in arrays.items()}
            rows["index"] = index.astype(np.int32)
            first += len(index)
            yield {name: rows[name] for name in self.quantities}


class Encoder:
    """A TimeSformer that takes decoded frames.

    On the CPU every video is computed by itself, so that its numbers never depend on its neighbours'. On a GPU views
    of several videos make a batch; copies travel on a stream of their own while the batch before is computed.

    Parameters
    ----------
    weights, spec : Weights, ClipSpec
        What to compute on which views.
    precision : str
        Of weights and residual stream; `auto` is bf16 on GPUs that have it, else fp32.
    device : str
        `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
    frame_pool : str
        `frame` is each frame's CLS token (`cls`) or its mean patch token (`mean`).
    layers : collection of int
        Blocks, counted from 1, whose CLS token becomes a quantity `layerN`.
    tokens_after : int, optional
        Blocks after which all tokens become a quantity `tokensN`, in float16.
    compile : bool
        Hand the forward to `torch.compile`: minutes at the start, and numbers of its own, which the key says.

    Raises
    ------
    ActionVitError
        If the weights do not load, or the device or a choice is not to be had here.
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
        self.compile = compile
        self.across_videos = self.device.type != "cpu"
        self._phases = Phases(self.device)
        tokens = spec.num_frames * (1 + (spec.size // weights.shape.patch) ** 2)
        with torch.inference_mode(), self._settings():
            model = pretrained(weights).eval().requires_grad_(False)
            self._stem = model.stem(spec.num_frames, spec.size).to(self.device, self.dtype)
            self._blocks = model.fold().to(self.device, self.dtype)
            if not compile:  # the compiler chooses and lays out its own products
                self._stem, self._blocks = self._stem.pack(), self._blocks.pack(tokens)
            self._feed = Feed(self.device, self.dtype, spec, (weights.mean, weights.std), self._phases)
            if self.device.type == "cuda":
                self._blocks = _with_own_kernels(self._blocks, self)
        self._compute = torch.compile(self._run, dynamic=False) if compile else self._run
        self.batch_views = self._first_guess(tokens)

    def _first_guess(self, tokens: int) -> int:
        """Return how many views to try in one batch: what fills the device, and fits into half its free memory."""
        wanted = max(1, _TOKENS_A_BATCH[self.device.type] // tokens)
        wanted = min(wanted, max(1, _MOST_FRAMES // self.spec.num_frames))
        if self.device.type != "cuda":
            return wanted if self.across_videos else min(wanted, self.spec.views)
        # At its widest a block holds the stream, a copy, and the MLP's hidden layer before and after the activation.
        view = tokens * (2 * self.weights.shape.width + 2 * self.weights.shape.mlp) * self.dtype.itemsize
        return max(1, min(wanted, torch.cuda.mem_get_info(self.device)[0] // (2 * view)))

    @contextmanager
    def _settings(self) -> Iterator[None]:
        """Make the encoder's device the current one and fp32 products what the precision says, for a while."""
        if self.device.type != "cuda":
            yield
            return
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")
        try:
            with torch.cuda.device(self.device):
                yield
        finally:
            torch.set_float32_matmul_precision(before)

    @property
    def batch_videos(self) -> int:
        """Videos worth handing to `start` at once: 1 on the CPU, a device batch on a GPU."""
        return max(1, self.batch_views // self.spec.views) if self.across_videos else 1

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds that the device was busy, by phase: `copy`, `prepare`, `forward`."""
        return self._phases.seconds

    def key_fields(self) -> dict[str, Any]:
        """Return what of this encoder changes its numbers, as `outputs.encoder_key` does without torch."""
        return encoder_key(
            self.weights,
            self.spec,
            precision=self.precision,
            frame_pool=self.frame_pool,
            layers=self.layers,
            tokens_after=self.tokens_after,
            compiled=self.compile,
        )

    def encode(self, frames: Frames) -> Arrays:
        """Return `quantities` for one video, whose frames hold at least those that `clip_indices` asks for."""
        return self.start([frames]).result()[0]

    def start(self, videos: Sequence[Frames]) -> Pending:
        """Queue videos on the device and return at once (on the CPU: when they are done).

        Hand over the next ones before asking for these ones' result, and a GPU never waits for the host.

        Raises
        ------
        ActionVitError
            If one view does not fit into the device's memory.
        """
        parts: list[_Started] = []
        rest = list(videos)
        while rest:
            count = self.batch_videos
            if started := self._try(rest[:count]):
                parts.append(started)
                del rest[:count]
            elif self.device.type == "cuda":
                torch.cuda.empty_cache()
        return Pending(parts, self.quantities)

    def _try(self, videos: Sequence[Frames]) -> _Started | None:
        """Queue one batch; where memory does not suffice, halve the batch for this and all further calls."""
        try:
            return self._start(videos)
        except RuntimeError as error:
            # Of the device, or of the host memory that it copies from and to, for which torch has no exception.
            if not isinstance(error, torch.OutOfMemoryError) and "out of memory" not in str(error):
                raise
            tried = min(self.batch_views, len(videos) * self.spec.views)
            if tried <= 1:
                raise ActionVitError(
                    f"one view of {self.spec.num_frames} × {self.spec.size} pixels does not fit into the memory of"
                    f" {self.device}; use --precision bf16, fewer --num-frames, or --device cpu"
                ) from error
            self.batch_views = tried // 2
            log.warning("out of memory on %s: going on with %d views a batch", self.device, self.batch_views)
        return None  # only now are the tensors gone that the error's traceback held

    def _start(self, videos: Sequence[Frames]) -> _Started:
        indices = [clip_indices(frames.count, self.spec) for frames in videos]
        with torch.inference_mode(), self._settings():
            pixels = self._feed(videos, indices)
            with self._phases.of("forward"):
                parts = [self._named(self._padded(part)) for part in torch.split(pixels, self.batch_views)]
                whole = {name: torch.cat([part[name] for part in parts])[: len(pixels)] for name in parts[0]}
                # On CUDA this allocates pinned memory and returns at once.
                arrays = {name: tensor.to("cpu", non_blocking=True) for name, tensor in whole.items()}
            done = torch.cuda.Event() if self.device.type == "cuda" else None  # type: ignore[no-untyped-call]
            if done:
                done.record()
        return _Started(indices, arrays, done)

    def _padded(self, pixels: Tensor) -> Tensor:
        """Fill a last batch up for a compiled forward, which knows one shape only."""
        short = self.batch_views - len(pixels) if self.compile else 0
        return torch.cat([pixels, pixels.new_zeros(short, *pixels.shape[1:])]) if short else pixels

    def forward(self, pixels: Tensor) -> Embedding:
        """Embed views (B, T, 3, S, S), normalised, on the encoder's device and in its `dtype`; queued on a GPU."""
        with torch.inference_mode(), self._settings():
            return self._compute(pixels)

    def _run(self, pixels: Tensor) -> Embedding:
        return run(
            embed(pixels, self._stem),
            self._blocks,
            mean_pool=self.frame_pool == "mean",
            layers=self.layers,
            tokens_after=self.tokens_after,
        )

    def _named(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the quantities of views (K, T, 3, S, S), all but `index`, on the device, in the types to keep."""
        given = self._compute(pixels)
        named = {"clip": given.clip.float(), "frame": given.frame.float()}
        named |= {f"layer{layer}": cls.float() for layer, cls in given.layers.items()}
        if given.tokens is not None:
            named[f"tokens{self.tokens_after}"] = given.tokens.to(torch.float16)
        return named


def _with_own_kernels(model: Folded, encoder: Encoder) -> Folded:
    """Return the model with the GPU's own kernels, where they compile and agree with torch's."""
    width, heads, T = encoder.weights.shape.width, encoder.weights.shape.heads, encoder.spec.num_frames
    trial = torch.randn(T, 2, 5, 3 * width, device=encoder.device, dtype=encoder.dtype)
    try:
        from actionvit.features.timesformer.gpu_kernels import attend_time_fused, normalise_fused, suits

        # torch's compiler writes LayerNorms of its own, into what is around them.
        if not encoder.compile and _agree("LayerNorm", normalise_fused(trial, 1e-6), normalise(trial, 1e-6)):
            model = replace(model, normalise=normalise_fused)
        if suits(T, width // heads, encoder.dtype) and _agree(
            "attention over frames", attend_time_fused(trial, heads), attend_time(trial, heads)
        ):
            model = replace(model, attend_time=attend_time_fused)
    except (
        Exception
    ) as error:  # Triton is absent, or fails in its own ways: what counts is that torch's is always there
        log.warning("no kernels of our own on %s (%s): using torch's", encoder.device, type(error).__name__)
    return model


def _agree(what: str, found: Tensor, right: Tensor) -> bool:
    """Whether our kernel computes what torch does; a warning if not."""
    off = (found - right).abs().max().item()
    if not off < 0.05:
        log.warning("our kernel for %s is off by %g on %s: using torch's", what, off, found.device)
        return False
    return True
