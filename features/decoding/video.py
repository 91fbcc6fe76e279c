"""Opening a video and decoding its frames: bit-equal to decoding all of it in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from actionvit.features.decoding.container import open_container
from actionvit.features.decoding.decord import DecordVideo
from actionvit.features.decoding.frame_folder import FrameFolder
from actionvit.features.decoding.frames import Allocate, CountChangedError, DecodeError, Frames
from actionvit.features.decoding.policy import DecodePolicy
from actionvit.features.decoding.pyav import PyAVVideo
from actionvit.features.failures import Reason
from actionvit.features.sampling import ClipSpec, Segment, union_indices

ATTEMPTS = 3


class Video(Protocol):
    """An open video file or frame folder."""

    @property
    def count(self) -> int:
        """Frames that a player shows."""

    @property
    def times(self) -> NDArray[np.float64] | None:
        """(count,), presentation times in seconds after the first frame, ascending; None where there are none."""

    def frames_at(self, indices: NDArray[np.int64]) -> Frames:
        """Decode the frames at ascending positions in presentation order, and no more than these need.

        Raises
        ------
        CountChangedError
            If decoding gives another number of frames than the file promised: `count` has been corrected, and the
            caller has to choose again.
        DecodeError
            With a `reason` from the closed list.
        """


@contextmanager
def open_video(path: Path, policy: DecodePolicy = DecodePolicy(), *, allocate: Allocate = np.empty) -> Iterator[Video]:
    """Open a video file or frame folder; close it at the end.

    Parameters
    ----------
    path : Path
    policy : DecodePolicy
        `on_corrupt` is not applied here: frames carry flags.
    allocate : callable
        Makes the arrays that frames are decoded into. The decoding workers pass shared memory: copying the frames of
        an HMDB51 clip there afterwards would cost 5 % of its decoding time.

    Raises
    ------
    DecodeError
        With a `reason` from the closed list.
    """
    if path.is_dir():
        yield FrameFolder(path, policy.max_pixels, allocate)
        return
    with open_container(path, policy.max_pixels) as container:
        video = PyAVVideo(container, allocate)
        yield DecordVideo(video) if policy.backend == "decord" else video


def sample_frames(
    video: Video, specs: Sequence[ClipSpec], policy: DecodePolicy = DecodePolicy(), segment: Segment | None = None
) -> Frames:
    """Decode the union of the frames that `specs` sample from a video, or from a segment of it, in one pass.

    Parameters
    ----------
    video : Video
    specs : sequence of ClipSpec
        At least one.
    policy : DecodePolicy
        `on_corrupt` decides about damaged videos.
    segment : Segment, optional
        Sample within its frames only; the result's `index` and `count` are those of the segment.

    Raises
    ------
    DecodeError
        With a `reason` from the closed list; `empty` if the segment has no frame.
    """
    if not specs:
        raise ValueError("specs: got none, expected at least one")
    for _ in range(ATTEMPTS):
        first, stop = (0, video.count) if segment is None else _bounds(video, segment)
        indices = union_indices(stop - first, specs)
        try:
            frames = video.frames_at(first + indices)
        except CountChangedError:
            continue
        if frames.flags and policy.on_corrupt == "skip":
            reason: Reason = "truncated" if "truncated" in frames.flags else "corrupt"
            detail = "damaged, though the sampled frames are intact"
            raise DecodeError(reason, detail, backend=frames.backend, frames_decoded=frames.count)
        if segment is None:
            return frames
        duration = _seconds(video, frames, first, stop)
        return replace(frames, index=indices, count=stop - first, duration=duration)
    raise DecodeError("corrupt", "decodes differently each time", backend="pyav", frames_decoded=video.count)


def decode(
    path: Path,
    specs: Sequence[ClipSpec],
    policy: DecodePolicy = DecodePolicy(),
    segment: Segment | None = None,
) -> Frames:
    """Open a video in this process, unsupervised, and decode the frames that `specs` sample.

    Parameters
    ----------
    path : Path
        A video file or frame folder.
    specs, policy, segment
        As for `sample_frames`.

    Raises
    ------
    DecodeError
        With a `reason` from the closed list.
    """
    with open_video(path, policy) as video:
        return sample_frames(video, specs, policy, segment)


def _bounds(video: Video, segment: Segment) -> tuple[int, int]:
    if segment.unit == "seconds" and video.times is None:
        raise DecodeError("unsupported", "has no presentation times: give the segment in frames")
    first, stop = segment.bounds(video.count, video.times)
    if first == stop:
        end = "" if video.times is None else f", the last one at {video.times[-1]:g} s"
        detail = f"no frame from {segment.start:g} to {segment.end:g} {segment.unit}: it has {video.count}{end}"
        raise DecodeError("empty", detail, frames_decoded=video.count)
    return first, stop


def _seconds(video: Video, frames: Frames, first: int, stop: int) -> float | None:
    """Return how long the frames from `first` to before `stop` play."""
    if video.times is None or frames.duration is None:
        return None
    end = float(video.times[stop]) if stop < video.count else frames.duration
    return end - float(video.times[first])
