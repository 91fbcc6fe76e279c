"""Named combinations of frames, size and weights, and their cost. Imports neither torch nor files."""

from __future__ import annotations

from dataclasses import dataclass, replace

from actionvit.errors import SettingError
from actionvit.features.sampling import ClipSpec
from actionvit.features.timesformer.config import TimeSformerConfig
from actionvit.features.view_settings import ViewSettings

BUILT_IN, UNTRAINED = "built-in", "untrained"
TINY = TimeSformerConfig(width=128, depth=4, heads=4, mlp=512, patch=16, num_frames=8, image_size=112)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A name for a frame count and size, and the weights that go with it."""

    name: str
    num_frames: int
    size: int
    stride: int
    """Frames between samples in the weights' training; used by dense sampling."""
    weights: str | None
    """Hub id, `built-in`, or None where nothing is published."""
    gmac: float
    """Multiply-adds of one view through the plain model, in 10⁹."""

    @property
    def config(self) -> TimeSformerConfig:
        """The architecture of the variant's weights."""
        if self.weights == BUILT_IN:
            return TINY
        return replace(TimeSformerConfig(), num_frames=self.num_frames, image_size=self.size)


_K400 = "facebook/timesformer-{}-finetuned-k400"
VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant(name="base", num_frames=8, size=224, stride=32, weights=_K400.format("base"), gmac=196),
        Variant(name="hr", num_frames=16, size=448, stride=16, weights=_K400.format("hr"), gmac=1703),
        Variant(name="large", num_frames=96, size=224, stride=4, weights=None, gmac=2380),
        Variant(name="tiny", num_frames=8, size=112, stride=4, weights=BUILT_IN, gmac=0.50),
        Variant(name="tiny-hr", num_frames=16, size=224, stride=2, weights=BUILT_IN, gmac=4.5),
    )
}


def variant_named(name: str) -> Variant:
    """Return the variant of a name. Raises ActionVitError, which lists the names."""
    if name not in VARIANTS:
        raise SettingError(
            f"variant: got {name!r}, expected one of {', '.join(VARIANTS)}; other encoders are read by"
            " `actionvit extract --encoder SRC` and are not fine-tuned"
        )
    return VARIANTS[name]


def clip_spec(variant: str, views: ViewSettings = ViewSettings()) -> ClipSpec:
    """Return how a variant samples a video, with the given settings instead of its own.

    The default is `uniform`, over the whole video: HMDB51's clips last one to three seconds, where the published
    strides (32 frames × 8) would mostly repeat the last frame. `dense` uses the stride of the weights' training unless
    `stride` is given.

    Raises
    ------
    ActionVitError
        If the variant is unknown.
    """
    defaults = variant_named(variant)
    return ClipSpec.of(views, num_frames=defaults.num_frames, size=defaults.size, stride=defaults.stride)


def gmac(config: TimeSformerConfig, spec: ClipSpec, *, needed: bool = False) -> float:
    """Return the multiply-adds of one view in 10⁹: linear layers, attention's two matmuls, the patch projection.

    Parameters
    ----------
    config : TimeSformerConfig
        The model.
    spec : ClipSpec
        Frames and size of the view.
    needed : bool
        Leave out what our forward avoids: `temporal_dense`, folded into the projection before it, and all of the last
        block except the CLS queries.
    """
    D, T = config.width, spec.num_frames
    patches = (spec.size // config.patch) ** 2
    tokens, with_cls = T * patches, T * (1 + patches)
    project = tokens * 3 * config.patch**2 * D
    time = (4 if needed else 5) * D * D * tokens + 2 * T * tokens * D
    space = 4 * D * D * with_cls + 2 * (1 + patches) * with_cls * D
    mlp = 2 * D * config.mlp
    last = time + space + mlp * (1 + tokens)
    if needed:
        # Per frame of the last block: the query, the query through the keys' matrix and the sum through the values',
        # two matmuls with all tokens per head, the output projection; then the MLP for T frames and the clip.
        last = time + 4 * D * D * T + 2 * config.heads * with_cls * D + mlp * (T + 1)
    return (project + (config.depth - 1) * (time + space + mlp * (1 + tokens)) + last) / 1e9
