"""A folder of frames (HMDB_simp) as a video: images in natural order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from actionvit.features.decoding.convert import Allocate
from actionvit.features.decoding.frames import DecodeError, Frames
from actionvit.features.media import frame_files

if TYPE_CHECKING:
    from actionvit.features.decoding.pyav import Wanted

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
"""What a file may be, whatever it is called: Pillow knows formats for which it would start other programs."""
DEEP = ("I", "F")
"""What Pillow's modes of more than eight bits a channel begin with; its own conversion would clip, not scale."""


def decode_folder(folder: Path, wanted: Wanted, max_pixels: int, allocate: Allocate = np.empty) -> Frames:
    """Decode the images at `wanted(count)`; images that are copies of others count as frames.

    Raises
    ------
    DecodeError
        `empty` without images; `corrupt` where a sampled one is broken; `unsupported` where sampled ones differ
        in size or have more than eight bits; `too_large` beyond `max_pixels`.
    """
    files = frame_files(folder)
    if not files:
        raise DecodeError("empty", "no image in the folder", backend="folder")
    index = wanted(len(files))
    data: NDArray[np.uint8] | None = None
    for row, place in enumerate(index.tolist()):
        try:
            image = _read(files[place], max_pixels)
            if data is None:
                data = allocate((len(index), *image.shape), np.uint8)
            if image.shape != data.shape[1:]:
                sizes = sorted({(data.shape[2], data.shape[1]), (image.shape[1], image.shape[0])})
                raise DecodeError("unsupported", f"images of {', '.join(f'{w} × {h}' for w, h in sizes)}")
        except DecodeError as error:
            detail = f"{files[place].name}: {error.detail}"
            raise DecodeError(error.reason, detail, backend="folder", frames=len(files)) from error.__cause__
        data[row] = image
    assert data is not None
    return Frames(data=data, index=index, count=len(files), backend="folder")


def _read(file: Path, max_pixels: int) -> NDArray[np.uint8]:
    """Return an image as (H, W, 3), upright. Raises DecodeError."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                size = f"{image.width} × {image.height}"
                raise DecodeError("too_large", f"{size} pixels, at most {max_pixels} allowed")
            if image.mode[0] in DEEP:
                raise DecodeError("unsupported", f"more than eight bits a channel (mode {image.mode})")
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Image.DecompressionBombError as error:
        raise DecodeError("too_large", " ".join(str(error).split())) from error
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow's readers raise on broken files
        detail = " ".join(str(error).replace(f"{file.parent}/", "").split())
        raise DecodeError("corrupt", detail) from error
