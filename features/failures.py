"""Why a video gave no frames: the closed list of reasons, and the record of one failure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from actionvit.features.fingerprint import NO_FILE, Fingerprint

Reason = Literal[
    "missing", "empty", "not_video", "truncated", "corrupt", "too_large", "timeout", "crashed", "memory", "unsupported"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A video that gave no frames."""

    id: str
    reason: Reason
    detail: str
    """One line."""
    backend: str = ""
    """The decoder that failed: `pyav`, `decord` or `folder`; empty if none was reached."""
    frames_decoded: int = 0
    """Frames decoded before the failure; 0 where the worker process died."""
    fingerprint: Fingerprint = NO_FILE
    """Fingerprint of the file when it failed."""
    decoder_version: str = ""
    """Versions of the decoding libraries; under another version, decoding is tried again."""

    def __post_init__(self) -> None:
        """Make `detail` one line of text."""
        object.__setattr__(self, "detail", " ".join(self.detail.replace("\0", " ").split()))

    @property
    def out_of_memory(self) -> bool:
        """Whether the decoder ran out of memory, or the machine did and killed the worker."""
        return self.reason == "memory" or (self.reason == "crashed" and "SIGKILL" in self.detail)

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"
