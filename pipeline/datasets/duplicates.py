"""Duplicate clips: equal bytes, or, for re-encoded clips, similar perceptual hashes of a few frames."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actionvit.features.fingerprint import content_digest, fingerprint, segment_digest
from actionvit.pipeline.datasets.dataset import Video

SIDE, LOW = 32, 8
NEAR = 0.12
"""Share of differing bits up to which two clips count as near-duplicates.

Of 523 clips of HMDB51, any two of different films differ in at least 17 % of the bits, typically in half. Every fifth
clip, re-encoded at half the size and a twentieth of the bytes, differs from the original typically in 2 %, at most 7 %.
"""


def picture_hash(frames: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return 63 bits per frame, (F · 63,): which low frequencies are above the frame's median.

    pHash of each frame: gray, 32 × 32, the lowest 8 × 8 coefficients of its discrete cosine transform except the first.

    Parameters
    ----------
    frames : ndarray of shape (F, H, W, 3), uint8
        The same number of frames for each clip.
    """
    from PIL import Image

    wave = np.cos(np.pi * (2 * np.arange(SIDE) + 1) * np.arange(LOW)[:, None] / (2 * SIDE))
    bits = []
    for frame in frames:
        small = Image.fromarray(frame).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
        low = (wave @ np.asarray(small, np.float64) @ wave.T).ravel()[1:]
        bits.append(low > np.median(low))
    return np.concatenate(bits)


def near_duplicates(hashes: Sequence[NDArray[np.bool_]], limit: float = NEAR) -> Iterator[tuple[int, int, float]]:
    """Yield each pair i < j whose hashes differ in at most a fraction `limit` of their bits, with that fraction."""
    if not hashes:
        return
    signs = np.where(np.stack(hashes), np.float32(1), np.float32(-1))
    length = signs.shape[1]
    for start in range(0, len(signs), 512):
        differing = (length - signs[start : start + 512] @ signs.T) / (2 * length)
        for i, j in np.argwhere(differing <= limit).tolist():
            if start + i < j:
                yield start + i, j, float(differing[i, j])


def identical(digests: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Return the groups of ids that have one digest, sorted."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for id in sorted(digests):
        groups[digests[id]].append(id)
    return sorted(tuple(group) for group in groups.values() if len(group) > 1)


def digests_where_sizes_agree(videos: Iterable[Video]) -> dict[str, str]:
    """Return the content digests of those videos that share their size with another; only these can be identical."""
    by_size: defaultdict[int, list[Video]] = defaultdict(list)
    for video in videos:
        try:
            by_size[fingerprint(video.path).size].append(video)
        except OSError:  # listed, but not on disk
            continue
    digests: dict[str, str] = {}
    of_path: dict[Path, str] = {}
    for video in (video for group in by_size.values() if len(group) > 1 for video in group):
        with suppress(OSError):  # not readable, or not a regular file
            if video.path not in of_path:
                of_path[video.path] = content_digest(video.path)
            content = of_path[video.path]
            digests[video.id] = content if video.segment is None else segment_digest(content, video.segment)
    return digests
