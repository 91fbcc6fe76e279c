"""Default names of runs."""

from __future__ import annotations

from collections.abc import Sequence

from actionvit.heads.weighting import Sampler, WeightingSpec


def default_name(
    first: Sequence[str], weighting: WeightingSpec, sampler: Sampler, more: Sequence[str], protocol: str | None
) -> str:
    """Return a run name built from the non-default settings: `base-linear-balanced`; empty parts are left out."""
    parts = [
        *first,
        weighting.class_weight if weighting.class_weight != "none" else "",
        f"{sampler}-sampler" if sampler != "uniform" else "",
        f"adjust{weighting.logit_adjust:g}" if weighting.logit_adjust else "",
        f"focal{weighting.focal:g}" if weighting.focal else "",
        *more,
        protocol or "",
    ]
    return "-".join(part for part in parts if part)
