"""Weights of training clips: class weights, balanced sampling, logit adjustment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actionvit.settings import setting

ClassWeight = Literal["none", "balanced", "effective"]
Sampler = Literal["uniform", "balanced"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightingSpec:
    """Settings that weight the classes in a loss."""

    class_weight: ClassWeight = setting("none", "Class weights: none, inverse frequency, or effective number of clips.")
    logit_adjust: float = setting(
        0.0,
        "Logit adjustment by TAU times log class frequency.",
        name="logit_adjustment",
        minimum=0,
        metavar="TAU",
    )
    """Added to training logits (Menon et al., ICLR 2021)."""
    focal: float = setting(
        0.0, "Focal loss exponent; 0 is cross-entropy.", name="focal_gamma", minimum=0, metavar="GAMMA"
    )
    """Lin et al., ICCV 2017."""


def sampler_setting() -> Any:
    """Return the field `sampler` of a spec."""
    return setting("uniform", "Minibatch sampling: every clip once per epoch, or all classes equally often.")


EFFECTIVE_BETA = 0.999
"""Cui et al. study 0.9 to 0.9999; 0.999 saturates near 1,000 clips, the size of the largest action classes."""


def class_weights(
    y: NDArray[np.intp], n_classes: int, scheme: ClassWeight | Mapping[Any, float] | None, *, classes: ArrayLike = ()
) -> NDArray[np.float64]:
    """Return one weight per class, scaled so that the training clips' weights sum to their number.

    Parameters
    ----------
    y : ndarray of shape (n,)
        Class indices, below `n_classes`.
    n_classes : int
        C.
    scheme : {"none", "balanced", "effective"}, mapping or None
        `balanced`: inverse frequency, n / (C · n_c). `effective`: inverse effective number of samples,
        (1 - β) / (1 - β ** n_c) with β = 0.999 (Cui et al., Class-Balanced Loss, CVPR 2019).
        A mapping from class to weight is used unchanged; missing classes weigh 1.
    classes : array-like of shape (C,)
        Classes that the mapping's keys name; class indices by default.

    Returns
    -------
    ndarray of shape (C,)
        0 for a class without clips.

    Raises
    ------
    ValueError
        If the scheme is unknown, or a mapping holds a negative weight.
    """
    counts = np.bincount(y, minlength=n_classes).astype(np.float64)
    if isinstance(scheme, Mapping):
        named = np.asarray(classes).tolist() or list(range(n_classes))
        per_class = np.array([float(scheme.get(name, 1.0)) for name in named])
        if np.any(per_class < 0) or not np.all(np.isfinite(per_class)):
            raise ValueError(f"class_weight: got {dict(scheme)!r}, expected weights of 0 or more")
        return per_class
    if scheme in (None, "none"):
        return np.ones(n_classes)
    if scheme not in get_args(ClassWeight):
        expected = ", ".join(get_args(ClassWeight))
        raise ValueError(f"class_weight: got {scheme!r}, expected one of {expected}, or a mapping")
    present = counts > 0
    number = counts if scheme == "balanced" else -np.expm1(counts * np.log(EFFECTIVE_BETA)) / (1 - EFFECTIVE_BETA)
    weights = np.divide(1.0, number, out=np.zeros(n_classes), where=present)
    scale: float = counts.sum() / np.dot(weights, counts)
    return np.asarray(weights * scale)


def sampling_rates(y: NDArray[np.intp], sampler: Sampler) -> NDArray[np.float64]:
    """Return the sampling probability of each clip, (n,); `balanced` draws every class equally often."""
    if sampler not in get_args(Sampler):
        raise ValueError(f"sampler: got {sampler!r}, expected one of {', '.join(get_args(Sampler))}")
    if sampler == "uniform":
        return np.full(len(y), 1 / len(y))
    counts = np.bincount(y)
    rates: NDArray[np.float64] = 1 / counts[y] / np.count_nonzero(counts)
    return rates


def log_prior(y: NDArray[np.intp], n_classes: int, sample_weight: NDArray[Any] | None = None) -> NDArray[np.float64]:
    """Return log π_c of the training clips, (C,), for logit adjustment (Menon et al., ICLR 2021).

    Parameters
    ----------
    y : ndarray of int, shape (n,)
        Class numbers.
    n_classes : int
        C.
    sample_weight : ndarray of shape (n,), optional
        Weight of each clip in the loss.
    """
    counts = np.bincount(y, weights=sample_weight, minlength=n_classes).astype(np.float64)
    return np.asarray(np.log(np.maximum(counts, np.finfo(np.float64).tiny) / counts.sum()))
