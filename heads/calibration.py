"""Temperature scaling, and its extension to several heads: exponents of probabilities, fitted by log-loss.

Calibrated, p(c) ∝ Π_v p_v(c) ** a_v. With one head, a = 1 / T is the temperature scaling of Guo et al. (On Calibration
of Modern Neural Networks, ICML 2017); with several it is stacking with one weight per head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from actionvit.heads.base import Floats

MIN_EXPONENT, MAX_EXPONENT = 0.05, 20.0
"""Bounds of a single head's exponent; one of several heads may have 0, but not all of them."""


def fit_exponents(log_proba: Sequence[Floats], y: Sequence[int] | NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the exponents, (V,), that minimize the log-loss of predictions on rows not trained on.

    Targets are smoothed as in Platt (Probabilistic Outputs for Support Vector Machines, 1999): (n + 1) / (n + 2) for
    the true class, the rest spread over all classes. Without it, n correct predictions have no finite optimum.

    Parameters
    ----------
    log_proba : sequence of V arrays of shape (n, C) or (n, K, C)
        Log-probabilities or logits of each head, per view if there are K views, whose probabilities are then averaged.
        Rows with a nan are left out.
    y : sequence of int, (n,)
        Column of the true class.

    Returns
    -------
    ndarray of shape (V,)
        1 / V each without rows.
    """
    from scipy.optimize import minimize

    stack = np.stack([values.astype(np.float64) for values in log_proba])
    stack = stack if stack.ndim == 4 else stack[:, :, None]
    usable = np.isfinite(stack).all(axis=(0, 2, 3))
    stack, y = stack[:, usable], np.asarray(y, dtype=np.intp)[usable]
    start = np.full(len(stack), 1 / len(stack))
    if not len(y):
        return start
    smoothing = 1 / (len(y) + 2)
    target = np.full((len(y), stack.shape[-1]), smoothing / stack.shape[-1])
    target[np.arange(len(y)), y] += 1 - smoothing

    def loss(exponents: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        per_view = log_softmax(np.einsum("v,vnkc->nkc", exponents, stack))
        proba = np.exp(per_view)
        fused = np.logaddexp.reduce(per_view, axis=1) - np.log(stack.shape[2])
        # Of the gradient of log(mean of views) a view's part is its share in the mean.
        weight = target[:, None] * np.exp(per_view - fused[:, None]) / stack.shape[2]
        residual = weight - weight.sum(axis=2, keepdims=True) * proba
        return -float((target * fused).sum()) / len(y), -np.einsum("nkc,vnkc->v", residual, stack) / len(y)

    lowest = MIN_EXPONENT if len(stack) == 1 else 0.0
    fit = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(lowest, MAX_EXPONENT)] * len(stack), tol=1e-10)
    return np.asarray(fit.x if fit.x.any() else start * MIN_EXPONENT)


def fit_temperature(logits: NDArray[np.float64], y: Sequence[int] | NDArray[np.intp]) -> float:
    """Return the temperature that minimizes the log-loss of `mean_softmax(logits, temperature)`, targets smoothed.

    Parameters
    ----------
    logits : ndarray of shape (n, K, C)
        Of clips that were not trained on.
    y : sequence of int, (n,)

    Returns
    -------
    float
        Between 0.05 and 20; 1 without clips.
    """
    return float(1 / fit_exponents([logits], y)[0])


def fuse(log_proba: Sequence[Floats] | Floats, exponents: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log-probabilities (n, C) of several heads' log-probabilities (V, n, C) and their exponents (V,)."""
    return np.asarray(log_softmax(np.einsum("v,vnc->nc", exponents, np.asarray(log_proba, dtype=np.float64))))


def mean_softmax(logits: NDArray[np.float64], temperature: float = 1.0) -> NDArray[np.float64]:
    """Return probabilities (n, C) from logits (n, K, C): softmax(logits / temperature), averaged over views."""
    return np.asarray(np.exp(log_softmax(logits / temperature)).mean(axis=1))


def log_softmax(logits: Floats) -> Floats:
    """Return log-probabilities of logits along the last axis."""
    shifted: Floats = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted
