"""Settings of a probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from actionvit.heads.criteria import Criterion
from actionvit.heads.saving import HeadName
from actionvit.heads.weighting import Sampler, WeightingSpec, sampler_setting
from actionvit.pipeline.datasets.splits import SplitSpec
from actionvit.pipeline.probing.features import Quantity
from actionvit.settings import Setting, check_settings, setting

Views = Literal["mean", "each"]
SEEDS = 5
"""Seeds where a seed changes the split or the training; see `tasks.default_seeds`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSpec(WeightingSpec, SplitSpec):
    """Settings of a probe; together with the dataset and the cache they determine every number."""

    head: HeadName = setting("linear", "Classifier head.")
    features: Quantity = setting(
        None,
        "Clip embeddings, frame embeddings, or all saved blocks joined.  [default: frame for attentive, else clip]",
    )
    views: Views = setting(
        "mean",
        "Average a video's views, or train on each view and average the predictions.",
        name="view_aggregation",
    )
    sampler: Sampler = sampler_setting()
    grid: Mapping[str, Sequence[Any]] = field(
        default_factory=dict,
        metadata={
            "setting": Setting(
                help="Values to search instead of the head's own grid; a single value fixes the parameter.",
                metavar="NAME=V,V",
            )
        },
    )
    criterion: Criterion | None = setting(
        None,
        "Metric that selection maximizes.  [default: accuracy; mean_class_accuracy if classes are balanced]",
        name="selection_metric",
    )
    inner_folds: int = 5
    """Folds of the cross-validation inside each training set."""
    select_on: Literal["folds", "val"] = setting(
        "folds", "Choose on parts of the training set, or (val) on the validation set that came with the data."
    )
    """With `val`, the head is then refitted on the training and the validation set."""
    calibrate: bool = setting(False, "Fit a temperature to out-of-fold predictions.")
    seeds: int | None = setting(
        None,
        "Number of repetitions with different seeds.  [default: 5, or 1 if nothing depends on the seed]",
        minimum=1,
    )
    long_tail: float | None = setting(None, "Thin training classes to this imbalance.", minimum=1, metavar="FACTOR")
    """1: as many clips of every class; None: not thinned."""
    long_tail_even: bool = False
    """Thin to as many clips as `long_tail` leaves, but to the same number of every class: the control."""
    shots: int | None = setting(None, "Training clips per class.  [default: all]", minimum=1)
    device: str = setting("cpu", "Device: cpu, cuda, cuda:1 or auto.")
    final: bool = setting(False, "Also train a model on all videos, for predict and export.")

    def __post_init__(self) -> None:
        """Set the default of `features`; check choices and ranges."""
        if self.features is None:
            object.__setattr__(self, "features", features_of(self.head))
        check_settings(self)

    @property
    def balances(self) -> bool:
        """Whether classes are made to count alike."""
        return self.class_weight != "none" or self.sampler == "balanced" or self.logit_adjust > 0


def features_of(head: HeadName) -> Quantity:
    """Return the embeddings that a head is made for."""
    return "frame" if head == "attentive" else "clip"
