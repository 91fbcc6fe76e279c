"""One TimeSformer to extract with, and the cache key of an encoder's embeddings; imports no torch until it loads."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Required, TypedDict, Unpack

from actionvit.errors import ActionVitError
from actionvit.features.decoding.policy import DecodePolicy, DecodingOptions
from actionvit.features.device import Precision
from actionvit.features.encoder import EncoderJob, OutputSpec, VideoEncoder
from actionvit.features.sampling import ClipSpec
from actionvit.features.store.keys import FeatureKey
from actionvit.features.store.store import FeatureStore
from actionvit.features.timesformer.checkpoint import Weights, find_weights
from actionvit.features.timesformer.outputs import FramePool, cache_key_fields, output_spec
from actionvit.features.timesformer.variants import BUILT_IN, UNTRAINED, VARIANTS, clip_spec, gmac
from actionvit.features.transformers_encoder import TransformersJob, find_encoder
from actionvit.features.view_settings import ViewSettings

logger = logging.getLogger(__name__)

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


def _supported(job: TransformersJob, views: Sequence[ViewSettings]) -> list[TransformersJob]:
    """Return one job per shape that an encoder supports; warn of shapes that are left out, and raise if all are."""
    jobs, refusals = [], []
    for each in views:
        frames, size = each.num_frames or job.spec.num_frames, each.size or job.spec.size
        shaped = replace(job, spec=replace(job.spec, num_frames=frames, size=size))
        try:
            shaped.output_spec()
        except ActionVitError as error:
            refusals.append(error)
        else:
            jobs.append(shaped)
    if not jobs:
        raise refusals[0]
    for refusal in refusals:
        logger.warning("left out: %s", refusal)
    return jobs


class ExtractOptions(DecodingOptions, total=False):
    """Keywords of `extract.extract` that an engine passes on to every shard."""

    flush_seconds: float
    flush_bytes: int


class CommonOptions(ExtractOptions):
    """Keywords of `extract.extract` and of `extract_on`, which runs it on an engine, with options of their own."""

    cache: Required[Path]
    policy: DecodePolicy
    wait: bool
    verify: bool
    retry_failed: bool


class Outputs(TypedDict, total=False):
    """Outputs of a TimeSformer, and how they are computed; see `Job`."""

    frame_pool: FramePool
    layers: tuple[int, ...]
    tokens_after: int | None
    compile: bool


class EncoderChoice(TypedDict):
    """Keywords of `make_jobs` that choose the encoders."""

    variants: Sequence[str]
    weights: Mapping[str, str]
    encoders: Sequence[tuple[str | None, str]]


def make_jobs(
    views: Sequence[ViewSettings],
    *,
    variants: Sequence[str],
    weights: Mapping[str, str],
    encoders: Sequence[tuple[str | None, str]] = (),
    precision: Precision,
    **outputs: Unpack[Outputs],
) -> list[EncoderJob]:
    """Return a job per encoder and view setting: transformers encoders first, then TimeSformer variants.

    Parameters
    ----------
    views : sequence of ViewSettings
        They differ in frames and size only.
    variants : sequence of str
        TimeSformer variants.
    weights : mapping
        Folder, file or hub id by variant; by default the variant's own.
    encoders : sequence of (name or None, source)
        Transformers encoders; `find_encoder` names those without a name.
    precision : str
        Resolved, as `resolve_device` returns it.

    Raises
    ------
    ActionVitError
        If weights are missing, or settings do not fit the model.
    ValueError
        If two encoders have one name, or outputs are chosen for transformers encoders.
    """
    chosen = [name for name, value in outputs.items() if value not in ((), None, False, "cls")]
    if encoders and chosen:
        public = {"layers": "save_layers", "tokens_after": "save_tokens_after"}.get(chosen[0], chosen[0])
        raise ValueError(f"{public}= is for TimeSformer variants, not for encoder=")
    outputs["layers"] = tuple(sorted(outputs.get("layers", ())))
    jobs: list[EncoderJob] = []
    names = set(VARIANTS)
    for name, source in encoders:
        job = find_encoder(source, replace(views[0], num_frames=None, size=None), name=name, precision=precision)
        if job.variant in names:
            raise ValueError(f"encoder: the name {job.variant} is taken; give encoder=NAME={source}")
        names.add(job.variant)
        jobs += _supported(job, views)
    for variant in variants:
        of_variant = find_weights(variant, weights.get(variant))
        for each in views:
            spec = clip_spec(variant, each)
            jobs.append(Job(variant=variant, spec=spec, weights=of_variant, precision=precision, **outputs))
    return jobs


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
