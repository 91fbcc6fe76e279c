"""Decoded frames of several videos -> the views of all of them, normalised, on the device that embeds them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actionvit.features.decoding.frames import Frames
from actionvit.features.sampling import ClipSpec
from actionvit.features.timesformer.timers import Phases
from actionvit.features.transforms import views

Norms = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of pixel values in [0, 1], by channel."""

# Frames that are copied to the device and resized together; the sums that resizing makes take several times as much.
_BYTES_AT_ONCE = 1 << 24


class Feed:
    """The way of pixels to a device: on CUDA in pinned memory, on a stream of its own beside what is computed."""

    def __init__(self, device: torch.device, dtype: torch.dtype, spec: ClipSpec, norms: Norms, phases: Phases) -> None:
        self._device, self._dtype, self._spec, self._norms, self._phases = device, dtype, spec, norms, phases
        if device.type == "cuda":
            self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, videos: Sequence[Frames], indices: Sequence[NDArray[np.int64]]) -> Tensor:
        """Return all views (V·K, T, 3, S, S) of videos, whose frames hold those that `indices` (K, T) each name."""
        return torch.cat([self._alike(*some) for some in _of_one_size(videos, indices)])

    def _alike(self, videos: Sequence[Frames], indices: Sequence[NDArray[np.int64]]) -> Tensor:
        """Return the views of videos of one size: one copy to the device and one resize for all of them."""
        places = [frames.positions(index) for frames, index in zip(videos, indices, strict=True)]
        used = [np.unique(place) for place in places]
        ends = np.cumsum([len(rows) for rows in used])
        data = self._room((int(ends[-1]), *videos[0].data.shape[1:]), torch.uint8)
        rows = self._room((sum(map(len, places)), self._spec.num_frames), torch.int64)
        for frames, rows_used, end in zip(videos, used, ends, strict=True):
            out = data.numpy()[end - len(rows_used) : end]
            np.take(frames.data, rows_used, axis=0, out=out, mode="clip")  # "raise" would copy twice
        found = [np.searchsorted(u, place) + end - len(u) for u, place, end in zip(used, places, ends, strict=True)]
        np.concatenate(found, out=rows.numpy())
        data, rows = self._sent(data), self._sent(rows)
        with self._phases.of("prepare"):
            return views(data, rows, self._spec, *self._norms, self._dtype)

    def _room(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return uninitialised host memory; on CUDA pinned, so that it can be copied beside what is computed."""
        return torch.empty(shape, dtype=dtype, pin_memory=self._device.type == "cuda")

    def _sent(self, tensor: Tensor) -> Tensor:
        """Return a tensor on the device; on CUDA copied on a stream of its own."""
        if self._device.type != "cuda":
            with self._phases.of("copy"):
                return tensor.to(self._device)
        current = torch.cuda.current_stream()
        with torch.cuda.stream(self._copies), self._phases.of("copy"):
            sent = tensor.to(self._device, non_blocking=True)
        current.wait_stream(self._copies)
        sent.record_stream(current)
        return sent


def _of_one_size(
    videos: Sequence[Frames], indices: Sequence[NDArray[np.int64]]
) -> Iterator[tuple[list[Frames], list[NDArray[np.int64]]]]:
    """Split videos, with what belongs to each, into runs of one frame size and of bounded memory."""
    first = size = 0
    for at, frames in enumerate(videos):
        size += frames.data.nbytes
        if at > first and (frames.data.shape[1:] != videos[first].data.shape[1:] or size > _BYTES_AT_ONCE):
            yield list(videos[first:at]), list(indices[first:at])
            first, size = at, frames.data.nbytes
    yield list(videos[first:]), list(indices[first:])
