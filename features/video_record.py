"""The record of one decoded video: made where the video is decoded, stored beside its embeddings."""

from __future__ import annotations

import re
from dataclasses import dataclass

from actionvit.features.fingerprint import Fingerprint

DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """Identity of a video and how it was decoded."""

    id: str
    """The dataset's id of the video."""
    digest: str
    """sha256 of the video's content, in hex (`fingerprint.content_digest`)."""
    fingerprint: Fingerprint
    """Size and modification time of the file when it was decoded."""
    count: int
    """Number of frames in the video."""
    flags: tuple[str, ...]
    """Irregularities of the decoding: `corrupt`, `truncated`."""
    backend: str
    """The decoder used."""

    def __post_init__(self) -> None:
        """Validate the fields."""
        if not self.id or "\0" in self.id:
            raise ValueError(f"id: got {self.id!r}, expected text without NUL")
        if not DIGEST.fullmatch(self.digest):
            raise ValueError(f"digest of {self.id}: got {self.digest!r}, expected 64 hex digits")
        if any("," in flag or not flag for flag in self.flags):
            raise ValueError(f"flags of {self.id}: got {self.flags!r}, expected words without commas")
