"""Clips as small pictures: a strip of frames for a page, within a size limit."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actionvit.features.clips import ClipSpec, clip_indices
from actionvit.features.decoding.decode import DecodePolicy, decode
from actionvit.features.decoding.frames import DecodeError

log = logging.getLogger(__name__)

FRAMES = 6
"""Frames of a strip."""
HEIGHT = 112
"""Pixels of a strip from top to bottom; twice what it takes on a page, for sharp screens."""
QUALITY = 72
"""Of the JPEG."""
LIMIT = 5 << 20
"""Bytes that all strips of a report may take together."""
MAX_PIXELS = 8192 * 4320


def strip(frames: NDArray[np.uint8], *, height: int = HEIGHT) -> NDArray[np.uint8]:
    """Return frames (F, H, W, 3) side by side, (height, F · w, 3), each in its own aspect."""
    from PIL import Image

    width = max(1, round(frames.shape[2] * height / frames.shape[1]))
    small = [Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS) for frame in frames]
    return np.concatenate([np.asarray(image) for image in small], axis=1)


def jpeg(pixels: NDArray[np.uint8], *, quality: int = QUALITY) -> bytes:
    """Return pixels (H, W, 3) as a JPEG file; the same pixels give the same bytes."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, optimize=True)
    return file.getvalue()


def sample(path: Path, frames: int = FRAMES) -> NDArray[np.uint8]:
    """Return frames (F, H, W, 3) spread evenly over a video; F is less where the video is shorter.

    Raises
    ------
    DecodeError
        If the video gives no frames.
    """
    spec = ClipSpec(num_frames=frames, size=HEIGHT)
    found = decode(path, [spec], DecodePolicy(max_pixels=MAX_PIXELS))
    return found.data[found.positions(np.unique(clip_indices(found.count, spec)))]


def strips(paths: Iterable[tuple[str, Path]], *, limit: int = LIMIT) -> dict[str, bytes]:
    """Return a strip as JPEG for each id whose video is there and decodes, until `limit` bytes are used up.

    What is left out is logged: the report is about numbers, and a missing picture must not stop it.
    """
    found: dict[str, bytes] = {}
    used = 0
    for id_, path in paths:
        try:
            picture = jpeg(strip(sample(path)))
        except (DecodeError, OSError) as error:
            log.warning("no picture of %s: %s", id_, error)
            continue
        if used + len(picture) > limit:
            log.warning("pictures take %d bytes: the rest is left out", used)
            break
        found[id_] = picture
        used += len(picture)
    return found


def faces(paths: Iterable[tuple[str, Path]], *, height: int = 44) -> dict[str, NDArray[np.uint8]]:
    """Return the middle frame (height, w, 3) of each video that is there and decodes, by id."""
    found: dict[str, NDArray[np.uint8]] = {}
    for id_, path in paths:
        try:
            found[id_] = strip(sample(path, frames=1), height=height)
        except (DecodeError, OSError) as error:
            log.warning("no picture of %s: %s", id_, error)
    return found
