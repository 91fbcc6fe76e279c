"""The encoder's named shapes, and what a view of one costs. Knows neither torch nor files."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from actionvit.errors import ActionVitError
from actionvit.features.sampling import ClipSpec, Sampling
from actionvit.features.timesformer.config import TimeSformerConfig

logger = logging.getLogger(__name__)

BUILT_IN, UNTRAINED = "built-in", "untrained"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A name for frames × size, and the weights that go with it."""

    name: str
    num_frames: int
    size: int
    stride: int
    """Frames between samples that the weights were trained with; used by `--sampling dense`."""
    weights: str | None
    """Hub id, `built-in`, or None where nothing is published."""
    gmac: float
    """Multiply-adds of one view through the plain model, in 10⁹."""


VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant(
            name="base",
            num_frames=8,
            size=224,
            stride=32,
            weights="facebook/timesformer-base-finetuned-k400",
            gmac=196,
        ),
        Variant(
            name="hr", num_frames=16, size=448, stride=16, weights="facebook/timesformer-hr-finetuned-k400", gmac=1703
        ),
        Variant(name="large", num_frames=96, size=224, stride=4, weights=None, gmac=2380),
        Variant(name="tiny", num_frames=8, size=112, stride=4, weights=BUILT_IN, gmac=0.50),
        Variant(name="tiny-hr", num_frames=16, size=224, stride=2, weights=BUILT_IN, gmac=4.5),
    )
}


def variant_named(name: str) -> Variant:
    """Return the variant; ActionVitError lists the names there are."""
    if name not in VARIANTS:
        raise ActionVitError(f"variant: got {name!r}, expected one of {', '.join(VARIANTS)}")
    return VARIANTS[name]


def clip_spec(
    variant: str,
    *,
    frames: int | None = None,
    size: int | None = None,
    sampling: Sampling | None = None,
    stride: int | None = None,
    clips: int | None = None,
    crops: int | None = None,
    flip: bool = False,
) -> ClipSpec:
    """Return how a variant samples a video, with what the user overrides.

    The default is `uniform`, over the whole video: HMDB51's clips last one to three seconds, where the published
    strides (32 frames × 8) would mostly repeat the last frame. `dense` takes the variant's own stride, the one its
    weights were trained with, unless `stride` says otherwise.

    Raises
    ------
    ActionVitError
        If the variant has no such name, or an override is out of range.
    """
    chosen = variant_named(variant)
    if stride is not None and sampling != "dense":
        logger.warning("a stride of %d makes no difference: sampling is uniform; --sampling dense takes it", stride)
    try:
        return ClipSpec(
            num_frames=chosen.num_frames if frames is None else frames,
            size=chosen.size if size is None else size,
            sampling=sampling or "uniform",
            # A stride that uniform sampling ignores must not make two keys of one result.
            stride=(chosen.stride if stride is None else stride) if sampling == "dense" else 1,
            clips=1 if clips is None else clips,
            crops=1 if crops is None else crops,
            flip=flip,
        )
    except ValueError as error:
        raise ActionVitError(f"variant {variant}: {error}") from error


def gmac(shape: TimeSformerConfig, spec: ClipSpec, *, needed: bool = False) -> float:
    """Return the multiply-adds of one view in 10⁹.

    Counts the products: linear layers, attention's two, the patch projection.

    Parameters
    ----------
    shape : TimeSformerConfig
        The model.
    spec : ClipSpec
        Frames and size of the view.
    needed : bool
        Leave out what our own forward proves superfluous: `temporal_dense` folded into the projection before it, and of
        the last block all but the CLS queries.
    """
    D, T = shape.width, spec.num_frames
    patches = (spec.size // shape.patch) ** 2
    tokens, with_cls = T * patches, T * (1 + patches)
    project = tokens * 3 * shape.patch**2 * D
    time = (4 if needed else 5) * D * D * tokens + 2 * T * tokens * D
    space = 4 * D * D * with_cls + 2 * (1 + patches) * with_cls * D
    mlp = 2 * D * shape.mlp
    last = time + space + mlp * (1 + tokens)
    if needed:
        # Of the last block, a frame: the query, the queries through the keys' matrix and the sums through the values',
        # two products with all tokens a head, the output projection; then the MLP for T frames and the clip.
        last = time + 4 * D * D * T + 2 * shape.heads * with_cls * D + mlp * (T + 1)
    return (project + (shape.depth - 1) * (time + space + mlp * (1 + tokens)) + last) / 1e9
