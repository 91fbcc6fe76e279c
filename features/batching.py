"""Batches of views through an encoder's forward: gathering, device memory, precision, asynchronous results."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actionvit.errors import ActionVitError
from actionvit.features import transforms
from actionvit.features.device import Precision, resolve_device
from actionvit.features.encoder import Arrays, VideoFrames
from actionvit.features.preprocess import Preprocessor
from actionvit.features.sampling import ClipSpec, clip_indices
from actionvit.features.timers import PhaseTimer
from actionvit.features.transforms import Resize

logger = logging.getLogger(__name__)

MeanStd = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of pixel values in [0, 1], per channel."""
Forward = Callable[[Tensor], dict[str, Tensor]]
"""Views (B, T, 3, S, S) -> the arrays to store, except `index`, on the device in their stored types."""

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Enough tokens per batch to fill the device; more only costs memory.
_TOKENS_PER_BATCH = {"cpu": 4096, "cuda": 200_000, "mps": 20_000}
_MAX_FRAMES = 65_535
"""Frames per batch: the number of sequences that CUDA's attention accepts."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Videos whose work is queued on the device, including the copies of the results."""

    indices: list[NDArray[np.int64]]
    arrays: dict[str, Tensor]
    """In host memory; valid once `event` has happened."""
    event: torch.cuda.Event | None


@dataclass(frozen=True, slots=True)
class QueuedBatches:
    """The `EncodeFuture` of a `BatchedEncoder`."""

    batches: list[_Batch]
    names: Collection[str]

    def done(self) -> bool:
        """Return whether `result` returns at once."""
        return all(batch.event is None or batch.event.query() for batch in self.batches)  # type: ignore[no-untyped-call]

    def result(self) -> list[Arrays]:
        """Return each video's arrays, in order, waiting for the device."""
        return [rows for batch in self.batches for rows in self._rows(batch)]

    def _rows(self, batch: _Batch) -> Iterator[Arrays]:
        if batch.event:
            batch.event.synchronize()
        arrays = {name: tensor.contiguous().numpy() for name, tensor in batch.arrays.items()}
        first = 0
        for index in batch.indices:
            rows = {name: array[first : first + len(index)] for name, array in arrays.items()}
            rows["index"] = index.astype(np.int32)
            first += len(index)
            yield {name: rows[name] for name in self.names}


class BatchedEncoder:
    """A `VideoEncoder` for any forward over views.

    On the CPU every video is computed by itself, so that its numbers never depend on other videos. On a GPU the views
    of several videos form a batch; copies run on a stream of their own while the previous batch is computed.

    Parameters
    ----------
    spec : ClipSpec
        The views per video.
    mean_std : pair of sequences of 3 floats
        Mean and standard deviation of pixel values in [0, 1], per channel.
    names : collection of str
        Arrays to return per video.
    load : callable
        Return the forward on a device, with weights of a dtype.
    tokens, view_values : int
        Tokens per view, and numbers held per view at the widest point of the forward; they size the first batch.
    precision, device : str
        As for `resolve_device`.
    fixed_batch : bool
        Pad every batch to the same number of views, for a compiled forward.
    resize : callable, optional
        As for `transforms.views`.
    """

    def __init__(
        self,
        spec: ClipSpec,
        mean_std: MeanStd,
        names: Collection[str],
        load: Callable[[torch.device, torch.dtype], Forward],
        *,
        tokens: int,
        view_values: int,
        precision: Precision = "auto",
        device: str = "auto",
        fixed_batch: bool = False,
        resize: Resize | None = None,
    ) -> None:
        self.spec, self.names, self.fixed_batch = spec, names, fixed_batch
        place, self.precision = resolve_device(device, precision)
        self.device, self.dtype = torch.device(place), DTYPES[self.precision]
        self.across_videos = self.device.type != "cpu"
        self._timer = PhaseTimer(self.device)

        def cut(frames: Tensor, positions: Tensor) -> Tensor:
            return transforms.views(frames, positions, spec, *mean_std, self.dtype, resize)

        with self._device_context():
            self.embed_views = load(self.device, self.dtype)
            self._preprocess = Preprocessor(self.device, cut, self._timer)
        self.batch_views = self._initial_batch(tokens, view_values * self.dtype.itemsize)

    def _initial_batch(self, tokens: int, view_bytes: int) -> int:
        """Return the views per batch to start with: enough to fill the device, within half its free memory."""
        views = max(1, _TOKENS_PER_BATCH[self.device.type] // tokens)
        views = min(views, max(1, _MAX_FRAMES // self.spec.num_frames))
        if self.device.type != "cuda":
            return views if self.across_videos else min(views, self.spec.views)
        return max(1, min(views, torch.cuda.mem_get_info(self.device)[0] // (2 * view_bytes)))

    @contextmanager
    def _device_context(self) -> Iterator[None]:
        """Make the encoder's device current and set the precision of fp32 matmuls, in inference mode."""
        with torch.inference_mode():
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
        """Videos per `submit`: 1 on the CPU, a device batch on a GPU."""
        return max(1, self.batch_views // self.spec.views) if self.across_videos else 1

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds the device has been busy, by phase: `copy`, `prepare`, `forward`."""
        return self._timer.seconds

    def encode(self, frames: VideoFrames) -> Arrays:
        """Return the arrays of one video, whose frames include those of `clip_indices`."""
        return self.submit([frames]).result()[0]

    def submit(self, videos: Sequence[VideoFrames]) -> QueuedBatches:
        """Queue videos on the device and return at once (on the CPU: when they are computed).

        Submit the next videos before waiting for the result of these, and a GPU never waits for the host.

        Raises
        ------
        ActionVitError
            If a single view does not fit into the device's memory.
        """
        batches: list[_Batch] = []
        rest = list(videos)
        while rest:
            count = self.batch_videos
            if batch := self._try(rest[:count]):
                batches.append(batch)
                del rest[:count]
            elif self.device.type == "cuda":
                torch.cuda.empty_cache()
        return QueuedBatches(batches, self.names)

    def _try(self, videos: Sequence[VideoFrames]) -> _Batch | None:
        """Queue one batch; when memory runs out, halve the batch size for all further batches and return None."""
        try:
            return self._queue(videos)
        except RuntimeError as error:
            # Also raised for host memory used in copies, for which torch has no exception type.
            if not isinstance(error, torch.OutOfMemoryError) and "out of memory" not in str(error):
                raise
            tried = min(self.batch_views, len(videos) * self.spec.views)
            if tried <= 1:
                raise ActionVitError(
                    f"one view of {self.spec.num_frames} × {self.spec.size} pixels does not fit into the memory of"
                    f" {self.device}; use precision bf16, fewer frames per view, or the CPU"
                ) from error
            self.batch_views = tried // 2
            logger.warning("out of memory on %s: continuing with %d views per batch", self.device, self.batch_views)
        return None  # outside the handler: the traceback no longer holds the tensors

    def _queue(self, videos: Sequence[VideoFrames]) -> _Batch:
        indices = [clip_indices(frames.count, self.spec) for frames in videos]
        with self._device_context():
            pixels = self._preprocess(videos, indices)
            with self._timer.time("forward"):
                parts = [self.embed_views(self._pad(part)) for part in torch.split(pixels, self.batch_views)]
                joined = {name: torch.cat([part[name] for part in parts])[: len(pixels)] for name in parts[0]}
                # On CUDA this allocates pinned memory and returns at once.
                arrays = {name: tensor.to("cpu", non_blocking=True) for name, tensor in joined.items()}
            event = torch.cuda.Event() if self.device.type == "cuda" else None  # type: ignore[no-untyped-call]
            if event:
                event.record()
        return _Batch(indices, arrays, event)

    def _pad(self, pixels: Tensor) -> Tensor:
        """Fill up the last batch where the forward accepts one batch size only."""
        missing = self.batch_views - len(pixels) if self.fixed_batch else 0
        return torch.cat([pixels, pixels.new_zeros(missing, *pixels.shape[1:])]) if missing else pixels
