"""Late fusion of fitted heads; with a single head, temperature scaling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from actionvit.heads.base import Floats, Head
from actionvit.heads.calibration import fit_exponents, fuse

FusionRule = Literal["mean", "stacked"]


class LateFusion(Head):
    """Fitted heads, one per block of features (a variant, for example), with fused predictions.

    Parameters
    ----------
    widths : sequence of int, optional
        Features of each block, in the order of X's columns; one block by default.
    rule : {"mean", "stacked"}
        Equal exponents, which averages log-probabilities, or exponents fitted to out-of-fold predictions.

    Attributes
    ----------
    heads_ : list of Head
    exponents_ : ndarray of shape (V,)
    """

    accepts_frames = True

    def __init__(self, *, widths: Sequence[int] | None = None, rule: FusionRule = "stacked") -> None:
        self.widths = widths
        self.rule = rule

    def assemble(self, heads: Sequence[Head], out_of_fold: Sequence[Floats], y: Any) -> LateFusion:
        """Fuse fitted heads.

        Parameters
        ----------
        heads : sequence of V Head
        out_of_fold : sequence of V arrays of shape (n, C)
            Log-probabilities of each head for the rows of y, which it was not trained on.
        y : array-like of shape (n,)

        Raises
        ------
        ValueError
            If the rule is unknown, or a head's classes differ from those of y.
        """
        if self.rule not in get_args(FusionRule):
            raise ValueError(f"rule: got {self.rule!r}, expected one of {', '.join(get_args(FusionRule))}")
        self.classes_, codes = np.unique(np.asarray(y), return_inverse=True)
        if any(not np.array_equal(head.classes_, self.classes_) for head in heads):
            raise ValueError("heads: got heads with different classes, expected those of y")
        self.heads_ = list(heads)
        self.n_features_in_ = sum(head.n_features_in_ for head in heads)
        if self.widths is not None and sum(self.widths) != self.n_features_in_:
            raise ValueError(f"widths: got {list(self.widths)}, expected a sum of {self.n_features_in_} features")
        equal = np.full(len(heads), 1 / len(heads))
        self.exponents_ = equal if self.rule == "mean" else fit_exponents(out_of_fold, codes)
        return self

    def predict_log_proba(self, X: Any) -> Floats:
        """Return log-probabilities, (n, C)."""
        X = self._test_data(X)
        blocks = [X] if self.widths is None else np.split(X, np.cumsum(self.widths)[:-1], axis=1)
        members = [head.predict_log_proba(block) for head, block in zip(self.heads_, blocks, strict=True)]
        return fuse(members, self.exponents_)
