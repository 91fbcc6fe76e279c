"""The optimum that `logistic` describes, for several training sets at once on a GPU.

A GPU takes longer to be told of one fit's products than to do them. So all folds of all splits go in lockstep, a
product for all of them, each with its own C, length of step, memory and certificate; a set that has arrived stands
still while the others go on. No number of one enters another's. Rows that a fold holds out are among its rows with
weight 0: their logits come with the others'. Sets are padded to one length in the same way.

K sets, C classes, n rows, R features and the intercept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actionvit.heads.logistic.lbfgs import MEMORY, PATIENCE, RECOMPUTE, REFRESH, TRIALS, Solution
from actionvit.heads.logistic.objective import SETTLING, Floats
from actionvit.heads.logistic.path import Optimum, TrainingSet, moments


@dataclass(slots=True)
class _Point:
    """Weights of every set with all that is known there."""

    weights: Tensor
    """(K, C, R), the intercept last."""
    logits: Tensor
    """(K, C, n)"""
    residual: Tensor
    """(K, C, n), p - y."""
    data_loss: Tensor
    """(K,), F without the penalty, in double precision."""


ROOM = 8 << 30
"""Bytes of the device that the sets of one group may take."""


def most_at_once(sets: Sequence[TrainingSet], device: str) -> int:
    """Return how many of some sets, of one width and number of classes, there is room for together."""
    room = min(ROOM, torch.cuda.mem_get_info(device)[0] // 2) if device.startswith("cuda") else ROOM
    rows, (width, classes) = max(len(one.X) for one in sets), (sets[0].X.shape[1], sets[0].classes)
    needed = sets[0].X.dtype.itemsize * (rows * (width + 10 * classes) + 2 * (MEMORY + 5) * classes * width)
    return max(1, int(room // needed))


class Lockstep:
    """Training sets on a device; `path` solves them for each C of theirs."""

    def __init__(self, sets: Sequence[TrainingSet], *, standardize: bool, device: str) -> None:
        """Take sets of one width and number of classes; the rows of those that share an array lie there once."""
        longest, width, self.classes = max(len(one.X) for one in sets), sets[0].X.shape[1], sets[0].classes
        self.kind: dict[str, Any] = {
            "dtype": torch.from_numpy(np.empty(0, sets[0].X.dtype)).dtype,
            "device": torch.device(device),
        }
        self.eps = torch.finfo(self.kind["dtype"]).eps
        weight, share = np.zeros((len(sets), longest)), np.zeros((len(sets), longest))
        codes = np.zeros((len(sets), longest), dtype=np.int64)
        for i, one in enumerate(sets):
            codes[i, : len(one.X)], share[i, : len(one.X)], weight[i, : len(one.X)] = one.y, one.share, one.weight
        self.true = torch.asarray(codes, device=device)[:, None]
        self.weight, self.total = self._like(weight), weight.sum(axis=1)
        self.mean, self.scale = np.zeros((len(sets), width)), np.ones((len(sets), width))
        self.basis: dict[int, NDArray[np.float64]] = {}
        self.rows = torch.zeros(len(sets), longest, width + 1, **self.kind)
        self.rows[..., -1] = 1
        of_array: dict[int, list[int]] = {}
        for i, one in enumerate(sets):
            of_array.setdefault(id(one.X), []).append(i)
        self._place([(sets[members[0]].X, members) for members in of_array.values()], share, standardize)
        self.feature_side = torch.einsum("kn,knr->kr", self.weight, self.rows**2)

    def _place(self, arrays: Sequence[tuple[Floats, list[int]]], share: NDArray[np.float64], standardize: bool) -> None:
        """Standardise and rotate the rows of each set.

        Sets of one array get one basis: it need only make XᵀX nearly diagonal, and they share most rows.
        """
        squares = []
        for X, members in arrays:
            here = torch.asarray(np.require(X, requirements=["C", "W"]), device=self.kind["device"]).double()
            for i in members:
                if standardize:
                    found = moments(here, torch.asarray(share[i, : len(X)], device=here.device), self.eps)
                    self.mean[i], self.scale[i] = (value.cpu().numpy() for value in found)
                mean, scale = (torch.asarray(of_all[i], device=here.device) for of_all in (self.mean, self.scale))
                self.rows[i, : len(X), :-1] = (here - mean) / scale
            rows = self.rows[members[0], : len(X), :-1]
            squares.append((rows.mT @ rows).double().cpu().numpy())
        with ThreadPoolExecutor() as pool:
            bases = list(pool.map(lambda square: np.linalg.eigh(square)[1], squares))
        for (X, members), basis in zip(arrays, bases, strict=True):
            self.basis.update(dict.fromkeys(members, basis))
            turned = self._like(basis)
            for i in members:
                self.rows[i, : len(X), :-1] = self.rows[i, : len(X), :-1] @ turned

    def path(self, path: NDArray[np.float64], *, tol: float = 1e-4, max_iter: int = 500) -> Iterator[list[Solution]]:
        """Yield each set's minimiser for each row of `path`, (steps, K): its C, rising; see `Factorised.path`."""
        weights = torch.zeros(len(self.rows), self.classes, self.rows.shape[2], **self.kind)
        trail = [self._at(weights, weights @ self.rows.mT)]
        for C in path:
            self.strength = 1 / C
            self.penalty = self._like(self.strength)[:, None, None].repeat(1, 1, self.rows.shape[2])
            self.penalty[..., -1] = 0
            self.point, solutions = self._minimise(self._start(trail), tol, max_iter)
            trail = [*trail[-1:], self.point]
            yield solutions

    def log_proba(self, rows: Sequence[NDArray[np.intp]]) -> list[NDArray[np.float64]]:
        """Return log-probabilities (m, C) of rows of each set, trained on or not, at the solutions yielded last."""
        wanted = [torch.asarray(one, device=self.rows.device) for one in rows]
        logits = torch.cat([of_set[:, at] for of_set, at in zip(self.point.logits, wanted, strict=True)], dim=1)
        found = torch.log_softmax(logits.double(), dim=0).T.cpu().numpy()
        return np.split(found, np.cumsum([len(one) for one in rows])[:-1])

    def unrotate(self, number: int, solution: Solution) -> Optimum:
        """Return a set's solution for rows as they come; intercepts sum to 0 where rows are standardised."""
        found = solution.weights.astype(np.float64)
        coef = found[:, :-1] @ self.basis[number].T / self.scale[number]
        return coef, found[:, -1] - found[:, -1].mean() - coef @ self.mean[number], solution

    def _minimise(self, point: _Point, tol: float, max_iter: int) -> tuple[_Point, list[Solution]]:
        """Descend from a point until every set's bound will do."""
        memory = _Memory(point.weights)
        gradient, precondition = self._gradient(point), self._preconditioner(point)
        best, since, steps, settled = (np.full(len(self.rows), value) for value in (np.inf, 0.0, 0.0, 0.0))
        arrived = best < 0
        for number in range(1, max_iter + 1):
            loss, gap, data_loss = self._measures(point, gradient)
            enough = tol**2 * (loss - data_loss)
            better = gap < 0.9 * best
            best, since = np.where(better, gap, best), np.where(better, 0, since + 1)
            near = (gap <= enough) | (since > PATIENCE)
            if (near & ~arrived).any():
                point, fell = self._settle(point, near & ~arrived & (settled < SETTLING), 1e-3 * enough)
                arrived, settled = arrived | (near & ~fell), settled + fell
                if arrived.all():
                    break
                gradient = self._gradient(point)
            going = ~near & ~arrived
            moved, stuck = self._search(point, gradient, memory.direction(gradient, precondition), going)
            steps += going
            if number % RECOMPUTE == 0:
                moved = self._at(moved.weights, moved.weights @ self.rows.mT)
            after = self._gradient(moved)
            memory.remember(moved.weights - point.weights, after - gradient)
            if stuck.any():  # what is remembered misleads, or rounding has won
                memory.forget(stuck)
                since += np.where(stuck, PATIENCE / 2, 0)
            point, gradient = moved, after
            if number % REFRESH == 0:
                precondition = self._preconditioner(point)
        loss, gap, data_loss = self._measures(point, gradient)
        size = loss - data_loss
        error = np.sqrt(np.divide(gap, size, out=np.zeros_like(gap), where=size > 0))
        weights = point.weights.double().cpu().numpy()
        found = zip(weights, loss.tolist(), gap.tolist(), error.tolist(), steps.tolist(), strict=True)
        return point, [Solution(w, f, g, e, int(n)) for w, f, g, e, n in found]

    def _measures(self, point: _Point, gradient: Tensor) -> NDArray[np.float64]:
        """Return of each set F, the bound on F - min F where the intercept is settled, and F without the penalty."""
        penalty = 0.5 * _dot(self.penalty * point.weights, point.weights)
        steep = gradient[..., :-1]
        loss, steepness, data_loss = _host(point.data_loss + penalty, _dot(steep, steep), point.data_loss)
        return np.stack([loss, 0.5 / self.strength * steepness, data_loss])

    def _at(self, weights: Tensor, logits: Tensor) -> _Point:
        """Evaluate the losses and p - y at logits that belong to the weights."""
        p = logits - logits.amax(dim=1, keepdim=True)
        mine = p.gather(1, self.true)
        p.exp_()
        # Where 1 - p of the true class is tiny it must not come from a difference: the other classes are summed alone.
        own = p.gather(1, self.true)
        p.scatter_(1, self.true, 0.0)
        others = p.sum(dim=1, keepdim=True)
        total = own + others
        p *= 1 / total
        p.scatter_(1, self.true, -others / total)
        losses = (self.weight * (total.log() - mine)[:, 0]).sum(dim=1, dtype=torch.float64)
        return _Point(weights, logits, p, losses)

    def _gradient(self, point: _Point) -> Tensor:
        return (point.residual * self.weight[:, None]) @ self.rows + self.penalty * point.weights

    def _class_side(self, point: _Point) -> Tensor:
        """Return G of each set times its total weight, (K, C, C), in double precision; see `softmax`."""
        p = point.residual.scatter_add(1, self.true, torch.ones_like(point.residual[:, :1]))
        side = -((p * self.weight[:, None]) @ p.mT).double()
        side.diagonal(dim1=1, dim2=2).zero_()
        side.diagonal(dim1=1, dim2=2).copy_(-side.sum(dim=2))
        return (side + side.mT) / 2

    def _preconditioner(self, point: _Point) -> tuple[Tensor, Tensor]:
        """Return eigenvectors of G and the inverse of G ⊗ A + penalty in their basis."""
        values, vectors = np.linalg.eigh(
            self._class_side(point).cpu().numpy() / self.total[:, None, None]
        )  # small: the host is faster
        values = np.maximum(values, 1e-9 * np.maximum(values[:, -1:], 1e-30))
        curvature = self._like(values)[..., None] * self.feature_side[:, None] + self.penalty
        return self._like(vectors), 1 / curvature

    def _search(
        self, point: _Point, gradient: Tensor, direction: Tensor, going: NDArray[np.bool_]
    ) -> tuple[_Point, NDArray[np.bool_]]:
        """Go along each set's direction until its slope has fallen to a fourth; also which sets found no such place.

        `lbfgs._search`, a length a set. A set that does not go, or finds no place, stays where it is.
        """
        logits = direction @ self.rows.mT
        weighted = logits * self.weight[:, None]
        bend = self.penalty * direction
        blur = self.eps * _dot(point.logits.abs().amax(dim=1), self.weight)
        first, tilt, bow, blur, start = _host(
            _dot(gradient, direction), _dot(bend, point.weights), _dot(bend, direction), blur, point.data_loss
        )
        length = np.where(going & (first < 0), 1.0, 0.0)
        low, low_slope, high, high_slope = 0 * length, first, np.full_like(length, np.inf), 0 * length
        done = length == 0
        for last in [False] * TRIALS + [True]:
            length = np.where(done, length, 0.0) if last else length  # what was not tried is not taken
            step = self._like(length)[:, None, None]
            # Nothing of a set that stands still may come from its direction, which may be no number.
            trial = self._at(point.weights, torch.where(step > 0, point.logits + step * logits, point.logits))
            if last:
                break
            data_loss, slope = _host(trial.data_loss, _dot(trial.residual, weighted))
            slope = slope + tilt + length * bow
            falls = data_loss - start + length * tilt + 0.5 * length**2 * bow <= 1e-4 * length * first + blur
            done = (length == 0) | (falls & (np.abs(slope) <= 0.25 * -first))
            if done.all():
                break
            up = falls & (slope < 0)
            low, low_slope = np.where(up, length, low), np.where(up, slope, low_slope)
            high = np.where(up | done, high, length)
            high_slope = np.where(up | done, high_slope, np.maximum(slope, 1e-3 * -first))
            with np.errstate(divide="ignore", invalid="ignore"):  # of the branch that is not taken
                grown = np.where(slope > first, length * first / (first - slope), 2 * length)
                between = low + (high - low) * -low_slope / (high_slope - low_slope)
            grown = np.clip(grown, 1.2 * length, 4 * length)
            length = np.where(done, length, np.where(np.isinf(high), grown, between))
        trial.weights = torch.where(step > 0, point.weights + step * direction, point.weights)
        return trial, going & (length == 0)

    def _settle(
        self, point: _Point, which: NDArray[np.bool_], enough: NDArray[np.float64]
    ) -> tuple[_Point, NDArray[np.bool_]]:
        """Take a Newton step of the intercept in some sets, unless it gains less than `enough`; also which took it."""
        slope = torch.einsum("kcn,kn->kc", point.residual, self.weight).double().cpu().numpy()
        side = self._class_side(point).cpu().numpy()
        # Adding the same to all classes changes nothing: the ones lift that direction out of the singular.
        lifted = side + (self.total / self.classes**2)[:, None, None]
        try:
            step = -np.linalg.solve(lifted, slope[..., None])[..., 0]
        except np.linalg.LinAlgError:  # of some set every row is sure of its class: no curvature is left
            step = -(np.linalg.pinv(lifted) @ slope[..., None])[..., 0]
        which = which & (-0.5 * (slope * step).sum(axis=1) > enough)
        shift = self._like(np.where(which[:, None], step, 0.0))
        weights = point.weights.clone()
        weights[..., -1] += shift
        moved = self._at(weights, point.logits + shift[..., None])
        before, after = _host(point.data_loss, moved.data_loss)
        fell = which & (after < before)
        return _choose(torch.from_numpy(fell).to(self.weight.device), moved, point), fell

    def _start(self, trail: Sequence[_Point]) -> _Point:
        """Return where to start: as far along each set's last move as the new F falls, or where it stands."""
        point = trail[-1]
        if len(trail) < 2:
            return point
        return self._search(point, self._gradient(point), point.weights - trail[0].weights, self.total > 0)[0]

    def _like(self, values: NDArray[np.float64] | Tensor) -> Tensor:
        """Return values in the rows' precision, where they are."""
        return torch.asarray(values, **self.kind)


class _Memory:
    """The last steps of each set, for L-BFGS: its two loops on the products of all pairs, which are small numbers."""

    def __init__(self, weights: Tensor) -> None:
        self.shape = weights.shape
        self.moved = weights.new_zeros(len(weights), 0, weights[0].numel())
        self.turned = self.moved
        self.products = np.zeros((len(weights), 0, 0))
        """Of each change of the weights (second axis) with each change of the gradient (third)."""
        self.useful = np.zeros((len(weights), 0), dtype=np.bool_)

    def remember(self, moved: Tensor, turned: Tensor) -> None:
        """Add a step."""
        self.moved = torch.cat([self.moved[:, 1 - MEMORY :], moved.flatten(1)[:, None]], dim=1)
        self.turned = torch.cat([self.turned[:, 1 - MEMORY :], turned.flatten(1)[:, None]], dim=1)
        column = self.moved @ self.turned[:, -1:].mT
        row = self.moved[:, -1:] @ self.turned.mT
        column, row = _host(column[..., 0], row[:, 0])
        kept = self.products[:, 1 - MEMORY :, 1 - MEMORY :]
        self.products = np.concatenate([np.concatenate([kept, row[:, None, :-1]], axis=1), column[..., None]], axis=2)
        self.useful = np.concatenate([self.useful[:, 1 - MEMORY :], column[:, -1:] > 0], axis=1)

    def forget(self, which: NDArray[np.bool_]) -> None:
        """Drop the steps of some sets."""
        self.useful[which] = False

    def direction(self, gradient: Tensor, precondition: tuple[Tensor, Tensor]) -> Tensor:
        """Return the direction of each set; `lbfgs._direction`."""
        count = self.useful.shape[1]
        if not count:
            return -_apply(precondition, gradient)
        own = np.einsum("kii->ki", self.products)
        inverse = np.divide(self.useful, own, out=np.zeros_like(own), where=self.useful)
        shares, changes = np.zeros_like(own), np.zeros_like(own)
        (along,) = _host((self.moved @ gradient.flatten(1)[..., None])[..., 0])
        for i in reversed(range(count)):
            shares[:, i] = inverse[:, i] * (along[:, i] - (self.products[:, i] * shares).sum(axis=1))
        rest = gradient - self._sum(self.turned, shares)
        direction, last = _apply(precondition, rest), self.turned[:, -1].view(self.shape)
        bent = _dot(last, _apply(precondition, last))
        (bent,) = _host(bent)
        scale = np.divide(own[:, -1], bent, out=np.ones_like(bent), where=self.useful[:, -1] & (bent > 0))
        direction = direction * torch.asarray(scale, dtype=rest.dtype, device=rest.device)[:, None, None]
        (against,) = _host((self.turned @ direction.flatten(1)[..., None])[..., 0])
        for i in range(count):
            found = inverse[:, i] * (against[:, i] + (self.products[:, :, i] * changes).sum(axis=1))
            changes[:, i] = np.where(self.useful[:, i], shares[:, i] - found, 0)
        return -direction - self._sum(self.moved, changes)

    def _sum(self, steps: Tensor, shares: NDArray[np.float64]) -> Tensor:
        """Return each set's steps, added by shares."""
        weight = torch.asarray(shares, dtype=steps.dtype, device=steps.device)
        return (weight[:, None] @ steps).view(self.shape)


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Return each set's sum of products, (K,), in double precision."""
    return (one * other).flatten(1).sum(dim=1, dtype=torch.float64)


def _host(*values: Tensor) -> NDArray[np.float64]:
    """Return tensors of one shape as an array, stacked: they come from the device in one piece."""
    return torch.stack(values).double().cpu().numpy()


def _apply(precondition: tuple[Tensor, Tensor], gradient: Tensor) -> Tensor:
    """Return the direction of steepest descent in the curvature's measure, but for its sign."""
    vectors, inverse = precondition
    moved = vectors @ ((vectors.mT @ gradient) * inverse)
    # The softmax does not feel a shift common to all classes: nothing may wander along it.
    return moved - moved.mean(dim=1, keepdim=True)


def _choose(which: Tensor, one: _Point, other: _Point) -> _Point:
    """Return one point's sets where `which` says so, else the other's."""
    wide = which[:, None, None]
    return _Point(
        torch.where(wide, one.weights, other.weights),
        torch.where(wide, one.logits, other.logits),
        torch.where(wide, one.residual, other.residual),
        torch.where(which, one.data_loss, other.data_loss),
    )
