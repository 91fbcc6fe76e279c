"""One variant to extract, and the key of everything that its numbers depend on; no torch until it is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from actionvit.features.decoding.decode import DecodePolicy
from actionvit.features.sampling import ClipSpec
from actionvit.features.store.keys import FeatureKey
from actionvit.features.timesformer.checkpoint import Weights
from actionvit.features.timesformer.outputs import FramePool, Precision, Quantities, encoder_key, quantities
from actionvit.features.timesformer.variants import gmac
from actionvit.pipeline.extraction.encode_queue import VideoEncoder

SCHEMA = 1
"""Raised when the same key fields would mean other numbers or another layout of the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One variant to extract: which weights, which views, which outputs."""

    variant: str
    weights: Weights
    spec: ClipSpec
    precision: Precision = "fp32"
    """Resolved: never `auto`."""
    frame_pool: FramePool = "cls"
    layers: tuple[int, ...] = ()
    """Blocks whose CLS is kept as well."""
    tokens_after: int | None = None
    """The block after which all tokens are kept as well."""
    compile: bool = False
    """Hand the forward to `torch.compile`."""

    @property
    def gmac(self) -> float:
        """Multiply-adds that one video's views need, in 10⁹."""
        return gmac(self.weights.shape, self.spec, needed=True) * self.spec.views

    def quantities(self) -> Quantities:
        """Return name -> (shape, type) of what a video gives.

        Raises
        ------
        ActionVitError
            If the model cannot do what is asked: a size of no whole patches, a block it has not.
        """
        return quantities(self.weights.shape, self.spec, layers=self.layers, tokens_after=self.tokens_after)


def feature_key(job: Job, policy: DecodePolicy) -> FeatureKey:
    """Return everything that a job's embeddings depend on; needs no torch.

    Raises
    ------
    ActionVitError
        If the model cannot do what is asked: a size of no whole patches, a block it has not.
    """
    job.quantities()
    fields = encoder_key(
        job.weights,
        job.spec,
        precision=job.precision,
        frame_pool=job.frame_pool,
        layers=job.layers,
        tokens_after=job.tokens_after,
        compiled=job.compile,
    )
    return FeatureKey(**fields, decoder=policy.key, schema=SCHEMA)


def load_encoder(job: Job, device: str) -> VideoEncoder:
    """Return the job's encoder on a device; imports torch, reads the weights."""
    from actionvit.features.timesformer.encoder import Encoder

    return Encoder(
        job.weights,
        job.spec,
        precision=job.precision,
        device=device,
        frame_pool=job.frame_pool,
        layers=job.layers,
        tokens_after=job.tokens_after,
        compile=job.compile,
    )
