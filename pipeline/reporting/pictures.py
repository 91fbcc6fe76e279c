"""Clips as small pictures: strips of frames, the same with attention laid over them, single frames, animations."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from actionvit.features.decoding import DecodeError, Frames, decode
from actionvit.features.sampling import ClipSpec, clip_indices

log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]

FRAMES = 6
"""Frames of a strip on a page."""
HEIGHT = 112
"""Pixels of such a strip from top to bottom; twice what it takes on a page, for sharp screens."""
GAP = 56
"""How many times higher than the gap between its frames a strip is."""
QUALITY = 72
"""Of the JPEG."""
LIMIT = 4 << 20
"""Bytes that all strips of a report may take together: under 6 MB as base64."""


class Look(Protocol):
    """An encoder that shows where its embedding of a video comes from: `rollout.Attention` is one."""

    @property
    def spec(self) -> ClipSpec:
        """Which frames it wants."""

    def __call__(self, frames: Frames) -> tuple[Pixels, NDArray[np.float32]]:
        """Return what it sees, (K, T, S, S, 3), and each patch's share, (K, T, side, side)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """One clip as JPEG files."""

    frames: bytes
    attention: bytes = b""
    """The same frames with attention over them; empty where there is none."""


def strip(frames: Pixels, *, height: int = HEIGHT) -> Pixels:
    """Return frames (F, H, W, 3) side by side in their own aspect, (height, ..., 3), a thin white gap between them."""
    from PIL import Image

    width, gap = max(1, round(frames.shape[2] * height / frames.shape[1])), height // GAP
    shown = np.full((height, len(frames) * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for place, frame in enumerate(frames):
        left = place * (width + gap)
        shown[:, left : left + width] = Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS)
    return shown


def jpeg(pixels: Pixels, *, quality: int = QUALITY) -> bytes:
    """Return pixels (H, W, 3) as a JPEG file; the same pixels give the same bytes."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, optimize=True)
    return file.getvalue()


def animation(pictures: Pixels, kind: Literal["gif", "webp"], *, seconds: float = 0.25) -> bytes:
    """Return pictures (F, H, W, 3) as a file that shows them one after the other, again and again."""
    from PIL import Image

    first, *rest = [Image.fromarray(picture) for picture in pictures]
    file = io.BytesIO()
    options = {"quality": 80, "method": 4} if kind == "webp" else {"optimize": True}
    first.save(file, kind.upper(), save_all=True, append_images=rest, duration=round(1000 * seconds), loop=0, **options)
    return file.getvalue()


def overlay(frames: Pixels, shares: NDArray[np.floating]) -> Pixels:
    """Return frames (T, H, W, 3) in grey with the shares of their patches (T, h, w) over them, from purple to yellow.

    One scale for the whole clip, so that its frames can be told apart: what is at the median share or below stays as it
    is, the 99.5th percentile and above are full.
    """
    from matplotlib import colormaps
    from PIL import Image

    low, high = np.quantile(shares, [0.5, 0.995])
    size = (frames.shape[2], frames.shape[1])
    smooth = [Image.fromarray(one.astype(np.float32)).resize(size, Image.Resampling.BILINEAR) for one in shares]
    level = np.clip((np.stack([np.asarray(one) for one in smooth]) - low) / max(high - low, 1e-12), 0, 1)
    weight = 0.8 * level[..., None] ** 0.7
    grey = frames @ np.array([0.299, 0.587, 0.114])
    colour = 255 * colormaps["inferno"](level)[..., :3]
    mixed = 0.85 * grey[..., None] * (1 - weight) + colour * weight
    return np.asarray(np.clip(mixed, 0, 255).round(), dtype=np.uint8)


def evenly(count: int, most: int) -> NDArray[np.intp]:
    """Return at most `most` of the places 0 to count - 1, evenly spaced, the middles of equal parts."""
    n = min(count, most)
    return np.asarray((2 * np.arange(n) + 1) * count // (2 * n), dtype=np.intp)


def strips(paths: Iterable[tuple[str, Path]], *, look: Look | None = None, limit: int = LIMIT) -> dict[str, Strip]:
    """Return a strip for each id whose video is there and decodes, until `limit` bytes are used up.

    What is left out is logged: the report is about numbers, and a missing picture must not stop it.

    Parameters
    ----------
    paths : iterable of (id, path)
        The videos.
    look : callable, optional
        For attention over the frames; they are then those that the encoder sees, cut as it cuts them.
    limit : int
        Bytes.
    """
    found: dict[str, Strip] = {}
    used = 0
    for id_, path in paths:
        try:
            picture = _strip(path, look)
        except (DecodeError, OSError) as error:
            log.warning("no picture of %s: %s", id_, error)
            continue
        used += len(picture.frames) + len(picture.attention)
        if used > limit:
            log.warning("the pictures would take more than %d bytes: %s and what follows is left out", limit, id_)
            break
        found[id_] = picture
    return found


def faces(paths: Iterable[tuple[str, Path]], *, height: int = 44) -> dict[str, Pixels]:
    """Return the middle frame (height, w, 3) of each video that is there and decodes, by id."""
    found: dict[str, Pixels] = {}
    for id_, path in paths:
        try:
            found[id_] = strip(_sample(path, 1), height=height)
        except (DecodeError, OSError) as error:
            log.warning("no picture of %s: %s", id_, error)
    return found


def _strip(path: Path, look: Look | None) -> Strip:
    if look is None:
        return Strip(frames=jpeg(strip(_sample(path, FRAMES))))
    seen, shares = (view[0] for view in look(decode(path, [look.spec])))
    at = evenly(len(seen), FRAMES)
    return Strip(frames=jpeg(strip(seen[at])), attention=jpeg(strip(overlay(seen, shares)[at])))


def _sample(path: Path, frames: int) -> Pixels:
    """Return frames (F, H, W, 3) spread evenly over a video; F is less where the video is shorter."""
    spec = ClipSpec(num_frames=frames, size=HEIGHT)
    found = decode(path, [spec])
    return found.data[found.positions(np.unique(clip_indices(found.count, spec)))]
