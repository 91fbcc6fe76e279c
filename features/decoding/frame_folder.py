"""A folder of images (as in HMDB_simp) as a video: the images in natural order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actionvit.features.decoding.frames import Allocate, DecodeError, Frames
from actionvit.features.media import frame_series

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
"""Accepted image formats, by content and not by suffix: for some others Pillow would start external programs."""
DEEP_MODES = ("I", "F")
"""First letters of Pillow's modes with more than eight bits per channel; its conversion clips them."""


class FrameFolder:
    """An opened frame folder; equal images count as frames.

    Raises
    ------
    DecodeError
        `empty` without images; `unsupported` with several series of images, where the video is ambiguous.
    """

    times = None

    def __init__(self, folder: Path, max_pixels: int, allocate: Allocate = np.empty) -> None:
        series = frame_series(folder)
        if not series:
            raise DecodeError("empty", "no image in the folder", backend="folder")
        if len(series) > 1:
            names = ", ".join(f"{pattern} ({len(files)})" for pattern, files in list(series.items())[:4])
            more = f" and {len(series) - 4} more" if len(series) > 4 else ""
            detail = f"several series of images, {names}{more}: leave only the frames in the folder"
            raise DecodeError("unsupported", detail, backend="folder")
        (self._files,) = series.values()
        self._max_pixels, self._allocate = max_pixels, allocate

    @property
    def count(self) -> int:
        """Images in the folder's series."""
        return len(self._files)

    def frames_at(self, indices: NDArray[np.int64]) -> Frames:
        """Decode the images at some positions.

        Raises
        ------
        DecodeError
            `corrupt` where one of them is broken; `unsupported` where their sizes differ or one has more than eight
            bits per channel; `too_large` beyond the largest accepted frame.
        """
        data: NDArray[np.uint8] | None = None
        for row, position in enumerate(indices.tolist()):
            file = self._files[position]
            try:
                image = _read(file, self._max_pixels)
                if data is None:
                    data = self._allocate((len(indices), *image.shape), np.uint8)
                if image.shape != data.shape[1:]:
                    sizes = sorted({(data.shape[2], data.shape[1]), (image.shape[1], image.shape[0])})
                    raise DecodeError("unsupported", f"images of {', '.join(f'{w} × {h}' for w, h in sizes)}")
            except DecodeError as error:
                detail = f"{file.name}: {error.detail}"
                raise DecodeError(
                    error.reason, detail, backend="folder", frames_decoded=self.count
                ) from error.__cause__
            data[row] = image
        assert data is not None
        return Frames(data=data, index=indices, count=self.count, backend="folder")


def _read(file: Path, max_pixels: int) -> NDArray[np.uint8]:
    """Return an image as (H, W, 3), upright by its EXIF tag. Raises DecodeError."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                size = f"{image.width} × {image.height}"
                raise DecodeError("too_large", f"{size} pixels, at most {max_pixels} allowed")
            if image.mode[0] in DEEP_MODES:
                raise DecodeError("unsupported", f"more than eight bits per channel (mode {image.mode})")
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Image.DecompressionBombError as error:
        raise DecodeError("too_large", " ".join(str(error).split())) from error
    except (OSError, SyntaxError, ValueError) as error:  # raised by Pillow's readers for broken files
        detail = " ".join(str(error).replace(f"{file.parent}/", "").split())
        raise DecodeError("corrupt", detail) from error
