"""One TimeSformer to extract with, and the cache key of an encoder's embeddings; imports no torch until it loads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actionvit.errors import ActionVitError
from actionvit.features.decoding import DecodePolicy
from actionvit.features.device import Precision
from actionvit.features.encoder import EncoderJob, OutputSpec, VideoEncoder
from actionvit.features.sampling import ClipSpec
from actionvit.features.store.keys import FeatureKey
from actionvit.features.store.store import FeatureStore
from actionvit.features.timesformer.checkpoint import Weights, find_weights
from actionvit.features.timesformer.outputs import FramePool, cache_key_fields, output_spec
from actionvit.features.timesformer.variants import BUILT_IN, UNTRAINED, gmac

SCHEMA = 1
"""Raised when the same key fields would mean other numbers or another layout of the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A TimeSformer variant to extract with: weights, views, outputs. An `EncoderJob`."""

    variant: str
    weights: Weights
    spec: ClipSpec
    precision: Precision = "fp32"
    """Resolved, never `auto`."""
    frame_pool: FramePool = "cls"
    layers: tuple[int, ...] = ()
    """Blocks whose CLS token is stored as well."""
    tokens_after: int | None = None
    """Number of blocks after which all tokens are stored as well."""
    compile: bool = False
    """Whether `torch.compile` builds the forward."""

    @property
    def source(self) -> str:
        """The folder, file or hub id of the weights."""
        return self.weights.source

    @property
    def gmac(self) -> float:
        """Multiply-adds needed for the views of one video, in 10⁹."""
        return gmac(self.weights.config, self.spec, needed=True) * self.spec.views

    @property
    def plain_gmac(self) -> float:
        """As `gmac`, for the plain model."""
        return gmac(self.weights.config, self.spec) * self.spec.views

    def output_spec(self) -> OutputSpec:
        """Return the arrays per video; see `outputs.output_spec`."""
        return output_spec(self.weights.config, self.spec, layers=self.layers, tokens_after=self.tokens_after)

    def key_fields(self) -> dict[str, Any]:
        """Return everything of the encoder that changes its numbers; see `outputs.cache_key_fields`."""
        return cache_key_fields(
            self.weights,
            self.spec,
            precision=self.precision,
            frame_pool=self.frame_pool,
            layers=self.layers,
            tokens_after=self.tokens_after,
            compiled=self.compile,
        )

    def load(self, device: str) -> VideoEncoder:
        """Return the encoder on a device; imports torch and reads the weights."""
        from actionvit.features.timesformer.encoder import Encoder

        return Encoder(
            self.weights,
            self.spec,
            precision=self.precision,
            device=device,
            frame_pool=self.frame_pool,
            layers=self.layers,
            tokens_after=self.tokens_after,
            compile=self.compile,
        )


def feature_key(job: EncoderJob, policy: DecodePolicy) -> FeatureKey:
    """Return everything that a job's embeddings depend on; needs no torch.

    Raises
    ------
    ActionVitError
        If the model does not support the settings, such as a size that is not a whole number of patches.
    """
    job.output_spec()
    return FeatureKey(**job.key_fields(), decoder=policy.key, schema=SCHEMA)


def current_weights(store: FeatureStore) -> str | None:
    """Return the sha256 of the weights that now have the name a store recorded; reads no network.

    Returns
    -------
    str or None
        Empty if they no longer exist; None if that cannot be found out: a hub id, a relative path from elsewhere.
    """
    source = store.info.get("weights")
    if not isinstance(source, str):
        return None
    path = Path(source).expanduser()
    if not path.exists() and source not in (BUILT_IN, UNTRAINED):
        return "" if path.is_absolute() else None
    try:
        return find_weights(store.variant, source).digest
    except ActionVitError:
        return None
