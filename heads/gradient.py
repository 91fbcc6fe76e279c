"""Training by minibatch gradient descent, the base of `attentive` and `mlp`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from actionvit.heads.base import Floats, Head, Params
from actionvit.heads.calibration import log_softmax
from actionvit.heads.weighting import ClassWeight, Sampler, class_weights, log_prior, sampling_rates

if TYPE_CHECKING:
    from torch import Generator, Tensor

    Weights = dict[str, Tensor]

BLOCK = 512
"""Rows predicted per batch."""


class GradientHead(Head):
    """AdamW at a constant learning rate on minibatches of standardized rows; a subclass defines the network.

    The rate is constant so that the state after 10 of 30 epochs is that of a training of 10: one training serves all
    numbers of epochs. On the CPU the same seed gives the same bits for the same number of threads.
    """

    accepts_frames = True

    epochs: int
    lr: float
    weight_decay: float
    batch: int
    dropout: float
    class_weight: ClassWeight | Mapping[Any, float] | None
    sampler: Sampler
    logit_adjust: float
    focal: float
    device: str
    random_state: int

    def _initial(self, shape: tuple[int, ...], n_classes: int, generator: Generator) -> Weights:
        """Return initial weights for rows of a shape, (D,) or (T, D)."""
        raise NotImplementedError

    def _logits(self, params: Weights, x: Tensor, drop: Dropout | None) -> Tensor:
        """Return logits (B, C) of rows; no dropout where `drop` is None."""
        raise NotImplementedError

    def fit(self, X: Any, y: Any) -> GradientHead:
        """Train.

        Parameters
        ----------
        X : array-like of shape (n, D) or (n, T, D)
        y : array-like of shape (n,)

        Raises
        ------
        ValueError
            If there are fewer than two classes, or a parameter is out of range.
        """
        for _ in self._train(X, y, [self.epochs]):
            pass
        return self

    def predict_grid(self, X: Any, y: Any, X_val: Any, grid: Sequence[Params]) -> list[Floats]:
        """Return log-probabilities of X_val per entry; entries that differ in epochs alone come from one training."""
        predictions: dict[int, Floats] = {}
        others = [{name: value for name, value in params.items() if name != "epochs"} for params in grid]
        for first, other in enumerate(others):
            if others.index(other) < first:
                continue
            epochs = {i: int(grid[i].get("epochs", self.epochs)) for i in range(len(grid)) if others[i] == other}
            head = clone(self).set_params(**other)
            for epoch in head._train(X, y, sorted(set(epochs.values()))):
                log_proba = head.predict_log_proba(X_val)
                predictions.update({i: log_proba for i, number in epochs.items() if number == epoch})
        return [predictions[i] for i in range(len(grid))]

    def predict_log_proba(self, X: Any) -> Floats:
        """Return log-probabilities, (n, C)."""
        import torch

        X = self._test_data(X)
        # In double precision, so that a row's result does not depend on the other rows of its batch.
        params = {name: torch.from_numpy(value).double() for name, value in self.weights_.items()}
        with torch.no_grad():
            logits = [
                self._logits(params, torch.from_numpy(self._standardize(X[start : start + BLOCK])), None)
                for start in range(0, len(X), BLOCK)
            ]
        return log_softmax(torch.cat(logits).numpy())

    def _standardize(self, X: Floats) -> NDArray[np.float64]:
        return np.asarray((X.astype(np.float64) - self.mean_) / self.scale_)

    def _train(self, X: Any, y: Any, checkpoints: Sequence[int]) -> Iterator[int]:
        """Train until the last checkpoint, an epoch; at each, store the weights and yield it."""
        import torch

        self._check_params(checkpoints)
        X, codes = self._training_data(X, y)
        over = tuple(range(X.ndim - 1))
        self.mean_ = X.mean(axis=over, dtype=np.float64)
        deviation = X.std(axis=over, dtype=np.float64)
        self.scale_ = np.where(deviation > 1e-6 * np.maximum(1, np.abs(self.mean_)), deviation, 1.0)
        generator = torch.Generator().manual_seed(self.random_state)
        params = self._initial(X.shape[1:], len(self.classes_), generator)
        params["out_bias"] = self._log_odds(codes)
        params = {name: value.to(self.device).requires_grad_() for name, value in params.items()}
        optimizer = torch.optim.AdamW(params.values(), lr=self.lr, weight_decay=self.weight_decay)
        rows = torch.from_numpy(self._standardize(X).astype(np.float32)).to(self.device)
        target = torch.eye(len(self.classes_))[torch.from_numpy(codes)].to(self.device)
        loss = self._loss(codes)
        drop = Dropout(self.dropout, generator)
        for epoch in range(1, checkpoints[-1] + 1):
            for chosen in self._batches(codes, generator):
                batch = chosen.to(self.device)
                optimizer.zero_grad()
                torch.autograd.backward(loss(self._logits(params, rows[batch], drop), target[batch]).mean())
                optimizer.step()
            if epoch in checkpoints:
                self.weights_ = {name: value.detach().cpu().numpy().copy() for name, value in params.items()}
                yield epoch

    def _loss(self, codes: NDArray[np.intp]) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the loss per row, (B,), of logits and one-hot targets (B, C)."""
        import torch

        from actionvit.heads.loss import weighted_loss

        weight = class_weights(codes, len(self.classes_), self.class_weight, classes=self.classes_)
        shift = self.logit_adjust * log_prior(codes, len(self.classes_))
        return partial(
            weighted_loss,
            weight=torch.from_numpy((weight / weight[codes].mean()).astype(np.float32)).to(self.device),
            shift=torch.from_numpy(shift.astype(np.float32)).to(self.device),
            focal=self.focal,
        )

    def _log_odds(self, codes: NDArray[np.intp]) -> Tensor:
        """Return the initial bias, (C,): the log frequency of each class in the weighted, sampled loss."""
        import torch

        number = len(self.classes_)
        weight = class_weights(codes, number, self.class_weight, classes=self.classes_)
        counted = log_prior(codes, number, sampling_rates(codes, self.sampler) * weight[codes])
        return torch.from_numpy((counted - self.logit_adjust * log_prior(codes, number)).astype(np.float32))

    def _batches(self, codes: NDArray[np.intp], generator: Generator) -> Iterator[Tensor]:
        """Yield the minibatches of an epoch: each row once, or as many draws with equal class frequencies."""
        import torch

        if self.sampler == "uniform":
            order = torch.randperm(len(codes), generator=generator)
        else:
            rates = torch.from_numpy(sampling_rates(codes, self.sampler))
            order = torch.multinomial(rates, len(codes), replacement=True, generator=generator)
        yield from torch.split(order, self.batch)

    def _check_params(self, checkpoints: Sequence[int]) -> None:
        if min(checkpoints) < 1 or self.batch < 1 or not self.lr > 0:
            raise ValueError(
                f"epochs, batch, lr: got {checkpoints}, {self.batch}, {self.lr}, expected at least 1, 1 and more than 0"
            )
        if not 0 <= self.dropout <= 0.99:
            raise ValueError(f"dropout: got {self.dropout}, expected 0 to 0.99")
        if self.focal < 0:
            raise ValueError(f"focal: got {self.focal}, expected 0 or more")


class Dropout:
    """Zero a fraction of a tensor's entries, drawn on the CPU, so that every device drops the same ones.

    The fraction is rounded to a 256th: a random byte per entry takes an eighth of the time of a random float.
    """

    def __init__(self, fraction: float, generator: Generator) -> None:
        self.dropped, self.generator = round(fraction * 256), generator

    def __call__(self, x: Tensor) -> Tensor:
        """Return x with entries dropped and the rest scaled to keep the expectation."""
        import torch

        if not self.dropped:
            return x
        words = torch.randint(-(2**63), 2**63 - 1, (-(-x.numel() // 8),), generator=self.generator)
        keep = words.view(torch.uint8)[: x.numel()].view(x.shape) >= self.dropped
        return x * (keep.to(x.device) * (256 / (256 - self.dropped)))
