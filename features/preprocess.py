"""Decoded frames of several videos -> their normalized views on the encoder's device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actionvit.features.encoder import VideoFrames
from actionvit.features.timers import PhaseTimer

# Bytes of frames copied and resized together; the sums in a resize take several times as much.
_MAX_GROUP_BYTES = 1 << 24


class Preprocessor:
    """Copy frames to a device and cut their views; on CUDA through pinned memory, on a stream beside the forward."""

    def __init__(self, device: torch.device, cut: Callable[[Tensor, Tensor], Tensor], timer: PhaseTimer) -> None:
        self._device, self._cut, self._timer = device, cut, timer  # `cut`: `transforms.views` of frames and positions
        if device.type == "cuda":
            self._copy_stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, videos: Sequence[VideoFrames], indices: Sequence[NDArray[np.int64]]) -> Tensor:
        """Return all views (V·K, T, 3, S, S) of videos, which contain the frames of `indices` (K, T) each."""
        return torch.cat([self._same_size_views(*group) for group in _same_size_groups(videos, indices)])

    def _same_size_views(self, videos: Sequence[VideoFrames], indices: Sequence[NDArray[np.int64]]) -> Tensor:
        """Return the views of videos of one size: one copy to the device and one resize for all of them."""
        positions = [frames.positions(index) for frames, index in zip(videos, indices, strict=True)]
        used = [np.unique(rows) for rows in positions]
        ends = np.cumsum([len(rows) for rows in used])
        data = self._empty_pinned((int(ends[-1]), *videos[0].data.shape[1:]), torch.uint8)
        rows = self._empty_pinned((sum(map(len, positions)), positions[0].shape[1]), torch.int64)
        for frames, rows_used, end in zip(videos, used, ends, strict=True):
            out = data.numpy()[end - len(rows_used) : end]
            np.take(frames.data, rows_used, axis=0, out=out, mode="clip")  # "raise" would copy twice
        gathered = [
            np.searchsorted(rows_used, rows) + end - len(rows_used)
            for rows_used, rows, end in zip(used, positions, ends, strict=True)
        ]
        np.concatenate(gathered, out=rows.numpy())
        data, rows = self._to_device(data), self._to_device(rows)
        with self._timer.time("prepare"):
            return self._cut(data, rows)

    def _empty_pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return uninitialized host memory, on CUDA pinned, so that copies run beside the forward."""
        return torch.empty(shape, dtype=dtype, pin_memory=self._device.type == "cuda")

    def _to_device(self, tensor: Tensor) -> Tensor:
        """Return a tensor on the device; on CUDA copied on the copy stream."""
        if self._device.type != "cuda":
            with self._timer.time("copy"):
                return tensor.to(self._device)
        current = torch.cuda.current_stream()
        with torch.cuda.stream(self._copy_stream), self._timer.time("copy"):
            copied = tensor.to(self._device, non_blocking=True)
        current.wait_stream(self._copy_stream)
        copied.record_stream(current)
        return copied


def _same_size_groups(
    videos: Sequence[VideoFrames], indices: Sequence[NDArray[np.int64]]
) -> Iterator[tuple[list[VideoFrames], list[NDArray[np.int64]]]]:
    """Split videos into consecutive groups of one frame size and of bounded memory."""
    first = size = 0
    for number, frames in enumerate(videos):
        size += frames.data.nbytes
        if number > first and (frames.data.shape[1:] != videos[first].data.shape[1:] or size > _MAX_GROUP_BYTES):
            yield list(videos[first:number]), list(indices[first:number])
            first, size = number, frames.data.nbytes
    yield list(videos[first:]), list(indices[first:])
