"""A folder of frames (HMDB_simp) as a video: images in natural order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from actionvit.features.decoding.frames import DecodeError, Frames
from actionvit.features.files import frame_files

if TYPE_CHECKING:
    from actionvit.features.decoding.pyav import Wanted


def decode_folder(folder: Path, wanted: Wanted, max_pixels: int) -> Frames:
    """Decode the images at `wanted(count)`; images that are copies of others count as frames.

    Raises
    ------
    DecodeError
        `empty` without images; `corrupt` where a sampled one is broken; `unsupported` where sampled ones differ
        in size; `too_large` beyond `max_pixels`.
    """
    from PIL import Image, UnidentifiedImageError

    files = frame_files(folder)
    if not files:
        raise DecodeError("empty", "no image in the folder", backend="folder")
    index = wanted(len(files))
    images = []
    for place in index.tolist():
        try:
            with Image.open(files[place]) as image:
                if image.width * image.height > max_pixels:
                    detail = f"{files[place].name}: {image.width} × {image.height} pixels, at most {max_pixels} allowed"
                    raise DecodeError("too_large", detail, backend="folder", frames=len(files))
                images.append(np.asarray(image.convert("RGB")))
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
            detail = f"{files[place].name}: {' '.join(str(error).split())}".replace(str(folder), folder.name)
            raise DecodeError("corrupt", detail, backend="folder", frames=len(files)) from error
    if len({image.shape for image in images}) > 1:
        sizes = sorted({f"{image.shape[1]} × {image.shape[0]}" for image in images})
        raise DecodeError("unsupported", f"images of {', '.join(sizes)}", backend="folder", frames=len(files))
    return Frames(data=np.stack(images), index=index, count=len(files), backend="folder")
