"""List sliding windows of a dataset's videos, as a table that is read as a dataset of segments."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from io import StringIO
from pathlib import Path

from actionvit.errors import ActionVitError
from actionvit.features.atomic import atomic_write
from actionvit.features.decoding.pool.messages import Decoded, DecodeRequest
from actionvit.features.decoding.pool.supervisor import decode_stream
from actionvit.features.sampling import ClipSpec
from actionvit.pipeline.datasets.dataset import Dataset

SPEC = ClipSpec(num_frames=1, size=16)
"""Decoding of one frame per video, which also returns the video's duration."""


def windows(duration: float, length: float, stride: float) -> Iterator[tuple[float, float]]:
    """Yield start and end, in seconds, of the windows that lie in a video; the whole of a shorter video.

    Starts are multiples of the stride: `|0123|  |4567|` with a stride of 4 and a length of 4.
    """
    count = int((duration - length) / stride + 1e-9) + 1 if duration > length else 1
    for number in range(count):
        start = round(number * stride, 6)
        yield start, round(start + length, 6)


def write_windows(
    dataset: Dataset,
    file: Path,
    *,
    length: float,
    stride: float,
    workers: int | None = None,
    timeout: float = 60.0,
    on_video: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[int, dict[str, str]]:
    """Write the windows of every video to a CSV file: path, label, split, source, start, end.

    Parameters
    ----------
    dataset : Dataset
        Its first official split becomes the column `split`; windows of one video have one source.
    file : Path
        Paths in it are relative to its folder.
    length, stride : float
        Seconds per window, and from one start to the next.
    workers, timeout
        As for `decode_stream`.
    on_video : callable
        Called with the videos done and their total number.

    Returns
    -------
    int
        Number of windows.
    dict of str to str
        Reason for each video without a window, by id.
    """
    for name, value in (("length", length), ("stride", stride)):
        if not value > 0:
            raise ValueError(f"{name}: got {value}, expected seconds above 0")
    if dataset.segments:
        raise ActionVitError(f"dataset `{dataset.name}` is a list of segments already; give the list of its videos")
    durations, failed = _durations(dataset, workers, timeout, on_video)
    sets = {}
    for split in dataset.official[:1]:
        for name, ids in (("train", split.train), ("val", split.val), ("test", split.test)):
            sets.update(dict.fromkeys(ids, name))
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    labels = ("label",) if dataset.class_names else ()
    writer.writerow(("path", *labels, *(("split",) if sets else ()), "source", "start", "end"))
    count = 0
    for video in dataset.videos:
        path = Path(os.path.relpath(video.path.absolute(), file.absolute().parent)).as_posix()
        for start, end in windows(durations[video.id], length, stride) if video.id in durations else ():
            label = (video.label,) if labels else ()
            split_cell = (sets.get(video.id, ""),) if sets else ()
            writer.writerow(
                (
                    path,
                    *label,
                    *split_cell,
                    video.source,
                    *(f"{time:.6f}".rstrip("0").rstrip(".") for time in (start, end)),
                )
            )
            count += 1
    if not count:
        raise ActionVitError(f"dataset `{dataset.name}`: no video has a duration; {len(failed)} failed")
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, text.getvalue().encode("utf-8", "surrogateescape"))
    return count, failed


def _durations(
    dataset: Dataset, workers: int | None, timeout: float, on_video: Callable[[int, int], None]
) -> tuple[dict[str, float], dict[str, str]]:
    """Return the duration of each video in seconds, and the reason for each video without one."""
    durations: dict[str, float] = {}
    failed: dict[str, str] = {}
    requests = (DecodeRequest(video.id, video.path, (SPEC,)) for video in dataset.videos)
    with closing(decode_stream(requests, workers=workers, timeout=timeout)) as stream:
        for done, item in enumerate(stream, start=1):
            on_video(done, len(dataset.videos))
            if not isinstance(item, Decoded):
                failed[item.id] = f"{item.reason}: {item.detail}"
            elif item.frames.duration is None:
                failed[item.id] = (
                    "has no presentation times, as a frame folder; list its segments with start_frame and end_frame"
                )
            else:
                durations[item.id] = item.frames.duration
    return durations, failed
