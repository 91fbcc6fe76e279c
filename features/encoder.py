"""The contract of a frozen encoder: sampled frames in, embeddings out, and a cache key.

An `EncoderJob` describes an encoder without importing torch; a `VideoEncoder` is the loaded model. The job lists
every setting that changes the numbers, so that a rerun can skip cached videos without loading the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from actionvit.features.sampling import ClipSpec

Arrays = dict[str, NDArray[Any]]
OutputSpec = dict[str, tuple[tuple[int, ...], str]]
"""Array name -> (shape per video, dtype)."""


class VideoFrames(Protocol):
    """Decoded frames of one video, such as `features.decoding.frames.Frames`."""

    @property
    def data(self) -> NDArray[np.uint8]:
        """(F, H, W, 3), RGB."""

    @property
    def count(self) -> int:
        """Number of frames of the whole video."""

    def positions(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of `data` that hold the frames `index`."""


class EncodeFuture(Protocol):
    """Embeddings of videos that an encoder is computing."""

    def done(self) -> bool:
        """Return whether `result` returns at once."""

    def result(self) -> list[Arrays]:
        """Wait for the device; return each video's arrays as in `EncoderJob.output_spec`, in order."""


class VideoEncoder(Protocol):
    """A loaded encoder on a device."""

    @property
    def batch_videos(self) -> int:
        """Videos per `submit`; 1 on the CPU, so that a row's bytes never depend on other videos."""

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds the device has been busy with `copy`, `prepare` and `forward`."""

    def submit(self, videos: Sequence[VideoFrames]) -> EncodeFuture:
        """Start encoding videos; a GPU computes while the caller gathers the next ones."""


class EncoderJob(Protocol):
    """One encoder to extract with: its store's name, views, outputs, cache key and cost."""

    @property
    def variant(self) -> str:
        """Name of the encoder's stores in the cache, and of the encoder in reports."""

    @property
    def source(self) -> str:
        """The folder, file or hub id of the weights."""

    @property
    def spec(self) -> ClipSpec:
        """The clips and views per video."""

    @property
    def gmac(self) -> float:
        """Multiply-adds for the views of one video, in 10⁹."""

    @property
    def plain_gmac(self) -> float:
        """As `gmac`, for the plain model without the shortcuts of our own forward."""

    def output_spec(self) -> OutputSpec:
        """Return the arrays per video: `clip` (K, D), `frame` (K, T, D), `index` (K, T) and any others.

        Raises
        ------
        ActionVitError
            If the model does not support the settings.
        """

    def key_fields(self) -> dict[str, Any]:
        """Return everything of the encoder that changes its numbers, as the fields of a `FeatureKey`."""

    def load(self, device: str) -> VideoEncoder:
        """Load the weights onto a device."""
