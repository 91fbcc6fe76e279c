"""Choice of the decoder and of the videos it accepts."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Literal, TypedDict

from actionvit.settings import check_settings, setting

Backend = Literal["pyav", "decord"]
OnCorrupt = Literal["keep", "skip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodePolicy:
    """Choice of the decoder and of the videos it accepts."""

    backend: Backend = setting("pyav", "Video decoder.")
    """Both give the same pixels: where decord is not known to be exact, PyAV decodes."""
    on_corrupt: OnCorrupt = setting(
        "keep", "Damaged videos whose sampled frames decode: keep and flag them, or skip them."
    )
    """A damaged video whose sampled frames are intact is kept and flagged (`keep`) or fails (`skip`)."""
    max_pixels: int = 8192 * 4320
    """Largest accepted frame, width × height."""

    def __post_init__(self) -> None:
        """Validate the fields."""
        check_settings(self)
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels: got {self.max_pixels}, expected at least 1")

    @property
    def key(self) -> str:
        """The fields that change pixels or acceptance, for a store's key; not the backend, as pixels are equal."""
        return f"rgb24-bilinear upright on_corrupt={self.on_corrupt} max_pixels={self.max_pixels}"


@lru_cache(maxsize=1)
def decoder_version() -> str:
    """Return the library versions that decide what decodes; a video that failed under others is tried again."""
    return f"av {version('av')}, decord2 {version('decord2')}, pillow {version('pillow')}, {platform.machine()}"


class DecodingOptions(TypedDict, total=False):
    """Keywords of the functions that decode videos in worker processes."""

    workers: int | None
    """Decoding processes, by default one per core; 0: decode in this one."""
    timeout: float
    """Seconds allowed to decode one video."""
