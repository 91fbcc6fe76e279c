"""Settings of a fine-tuning, its progress, and the state that checkpoints hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from actionvit.errors import SettingError
from actionvit.features.sampling import ClipSpec
from actionvit.heads.criteria import Criterion
from actionvit.heads.weighting import Sampler, WeightingSpec, sampler_setting
from actionvit.pipeline.datasets.splits import SplitSpec
from actionvit.settings import check_settings, setting

HeadInit = Literal["probe", "zero"]
TokenDtype = Literal["fp16", "fp32"]
RankSampling = Literal["shuffled", "class-aware", "sharded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimSpec:
    """Settings of AdamW (Loshchilov and Hutter, ICLR 2019) and of its learning-rate schedule."""

    lr: float = setting(1e-4, "Peak learning rate of the head and the last block (AdamW).", minimum=0, above=True)
    layer_decay: float = setting(
        0.75, "Learning rate of each block relative to the block above.", minimum=0, above=True, maximum=1
    )
    """As in Clark et al., ICLR 2020, and BEiT, 2021."""
    weight_decay: float = setting(0.05, "Weight decay, applied to weight matrices only.", minimum=0)
    """Not to biases, LayerNorms and embeddings."""
    warmup: float = setting(0.1, "Fraction of steps with linear warm-up.", name="warmup_fraction", minimum=0, maximum=1)
    clip_norm: float = setting(1.0, "Maximum gradient norm; 0 disables clipping.", name="max_grad_norm", minimum=0)
    ema: float = setting(
        0.0,
        "Decay per step of the exponential moving average of the weights; 0 disables it.",
        name="ema_decay",
        minimum=0,
        maximum=1,
        below=True,
    )
    """The averaged weights are scored and kept."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_settings(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentSpec:
    """Ranges of the random changes."""

    window: float = setting(
        0.7,
        "Minimum duration of a view, as a fraction of the video.",
        name="min_duration",
        minimum=0,
        above=True,
        maximum=1,
    )
    area: float = setting(
        0.4,
        "Minimum crop area, as a fraction of the largest square of the frame.",
        name="min_crop_area",
        minimum=0,
        above=True,
        maximum=1,
    )
    flip: bool = setting(True, "Mirror half of the views.", name="augment_flip")
    keep_sides: tuple[str, ...] = setting(
        (),
        "Class that is never mirrored, because left and right differ.  [repeatable]",
        name="no_flip_class",
        metavar="CLASS",
    )
    colours: int = setting(2, "Color operations per view; 0 disables them.", name="color_ops", minimum=0)
    """Drawn from `COLOR_OPS`."""
    strength: float = setting(0.5, "Magnitude of the color operations.", name="magnitude", minimum=0, maximum=1)

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_settings(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSpec(WeightingSpec):
    """The loss settings of a probe, and label smoothing."""

    label_smoothing: float = setting(
        0.1, "Fraction of each target spread over all classes.", minimum=0, maximum=1, below=True
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_settings(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSpec:
    """How an epoch is divided into steps."""

    batch: int = setting(16, "Clips per step, over all ranks.", name="batch_size", minimum=1)
    sampler: Sampler = sampler_setting()
    deal: RankSampling = setting(
        "shuffled",
        "Assignment of clips to ranks: shuffled, class by class, or a fixed shard per rank.",
        name="rank_sampling",
    )
    """`shuffled`: in turn. `class-aware`: in turn by class, so that all ranks see the same classes. `sharded`: each
    rank draws from a fixed part of the training set, in id order."""
    mixup: float = setting(0.0, "Mixup: alpha of Beta(alpha, alpha); 0 disables it.", minimum=0, metavar="ALPHA")
    """The weight of the first clip (Zhang et al., ICLR 2018)."""
    cutmix: float = setting(0.0, "CutMix: alpha of Beta(alpha, alpha); 0 disables it.", minimum=0, metavar="ALPHA")
    """Yun et al., ICCV 2019; with both, each is drawn half of the time."""
    seed: int = setting(0, "Random seed.", minimum=0, maximum=2**31 - 1)

    def __post_init__(self) -> None:
        """Check the ranges and choices."""
        check_settings(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSpec:
    """Settings of the training loop."""

    epochs: int = setting(20, "Maximum number of epochs.", minimum=0)
    patience: int = setting(
        8, "Stop after this many epochs without improvement on the validation set; 0: never.", minimum=0
    )
    criterion: Criterion = "accuracy"
    """Validation metric that selects the epoch; ties are broken by the lower log loss."""
    micro_batch: int | None = setting(
        None,
        "Clips per forward pass; gradients accumulate.  [default: as many as fit]",
        name="micro_batch_size",
        minimum=1,
    )
    drop_path: float = setting(
        0.1,
        "Stochastic-depth rate of the second-to-last block, less below; needs two trained blocks or more.",
        name="stochastic_depth",
        minimum=0,
        maximum=1,
        below=True,
    )
    """Earlier trained blocks scale down linearly, to 0 for the first block. The last block is never dropped."""
    autocast: bool = False
    """Compute matmuls in bf16; weights stay fp32."""
    sampling: SamplingSpec = field(default_factory=SamplingSpec)
    optim: OptimSpec = field(default_factory=OptimSpec)
    loss: LossSpec = field(default_factory=LossSpec)

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_settings(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneSpec(SplitSpec):
    """Settings of a fine-tuning; together with the dataset and the weights they determine every number."""

    variant: str
    train: str = "last:1"
    """`head`, `last:K` blocks with everything above, or `all`."""
    clip: ClipSpec
    """The plain views, which are validated and tested on; scores are averaged over the K views."""
    augment: AugmentSpec | None = field(default_factory=AugmentSpec)
    views: int = 0
    """Different training views per clip; 0 draws a new one each time, which cannot be cached."""
    tokens: TokenDtype | None = None
    """Train from cached tokens of this precision; None to decode and to run the frozen blocks each time."""
    start: HeadInit = "probe"
    """`probe`: the head starts as the linear probe of the training set (Kumar et al., ICLR 2022). `zero`: at 0."""
    validation: float = 0.2
    """Fraction of the training set, by source, that selects the epoch and fits the temperature."""
    select_on: Literal["train", "val"] = "train"
    """`train`: that part of the training set. `val`: the validation set that came with the data."""
    refit: bool = True
    """After the epoch is selected, train again on training and validation set together for that many epochs."""
    final: bool = False
    """Also train a model on all videos, for predict and export; the metrics stay those of the splits."""
    checkpointing: bool = False
    """Activation checkpointing."""
    training: TrainSpec
    splits: tuple[str, ...] = ()
    """Names of the splits to train on; empty for all."""

    def __post_init__(self) -> None:
        """Validate the combination of fields."""
        mixes = self.training.sampling.mixup or self.training.sampling.cutmix
        if self.tokens and mixes:
            raise SettingError("mixup= and cutmix= blend pixels, which cached tokens do not hold: add tokens=False")
        if self.tokens and self.train == "all":
            raise SettingError("train=all trains every block, so tokens cannot be cached: add tokens=False")
        if self.tokens and self.augment and not self.views:
            raise SettingError("cached_views=0 draws new views, and cached tokens hold fixed ones: use cached_views=4")
        if not 0 < self.validation < 1:
            raise SettingError(f"val_fraction: got {self.validation}, expected between 0 and 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Running values of an epoch, after a step."""

    epoch: int
    step: int
    steps: int
    loss: float
    """Mean over this epoch's clips so far, on this rank."""
    accuracy: float
    lr: float
    clips_per_second: float


@dataclass(slots=True, kw_only=True)
class TrainerState:
    """The part of a checkpoint that is not tensors."""

    epoch: int = -1
    """Last finished epoch; 0 is the initial model, scored before the first step."""
    best_epoch: int = 0
    best_score: tuple[float, float] = (float("-inf"), float("-inf"))
    history: list[dict[str, float]] = field(default_factory=list)
    averaged: int = 0
    """Steps in the EMA."""
    failures: dict[str, str] = field(default_factory=dict)
    """Reason by id of the clips that did not decode so far; a resumed training does not decode them again."""
