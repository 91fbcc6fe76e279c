"""Preconditioned L-BFGS for the objective of `objective`; see `path` for the method as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actionvit.heads.logistic.objective import Iterate, Objective, Preconditioner, dot

if TYPE_CHECKING:
    from actionvit.heads.base import Floats

MEMORY = 10
"""Pairs that L-BFGS keeps."""

REFRESH = 3
"""Steps between updates of the preconditioner."""

RECOMPUTE = 30
"""Steps between full evaluations of the logits, which otherwise accumulate rounding errors."""

PATIENCE = 20
"""Steps without a smaller gap before stopping: the precision of the dtype is reached."""

MAX_TRIALS = 10
"""Step lengths tried per line search."""

FAR = 0.1
"""Bound of |W - W*| / |W| above which a fit has failed."""

STUCK = 3
"""Trials after which an end of the interval that has not moved is taken to be too steep."""


@dataclass(frozen=True, slots=True)
class Solution:
    """Result of the solver."""

    weights: Floats
    """(C, r + 1) in the rotated basis, the intercept last."""
    loss: float
    """F."""
    gap: float
    """Upper bound of F - min F."""
    error: float
    """Upper bound of |W - W*| / |W|."""
    steps: int
    """L-BFGS steps taken."""


class _Pair(NamedTuple):
    """Change of the weights and of the gradient in one step, and their positive inner product."""

    s: Floats
    y: Floats
    sy: float


class Descent:
    """L-BFGS from a starting point, in portions.

    Parameters
    ----------
    objective : Objective
        Its penalty must not change during the descent.
    start : Iterate
    tol : float
        Bound of |W - W*| / |W| to reach, as far as the precision allows.
    """

    def __init__(self, objective: Objective, start: Iterate, tol: float) -> None:
        self.objective, self.iterate, self.tol = objective, start, tol
        self.gradient, self.precondition = objective.gradient(start), Preconditioner(objective, start)
        self.memory: list[_Pair] = []
        self.smallest_gap, self.steps_since, self.steps = np.inf, 0, 0
        self.done = False

    def run(self, max_steps: int) -> bool:
        """Descend until converged, or until `max_steps` steps in all were taken; return whether converged."""
        while not self.done and self.steps < max_steps:
            self._step()
        return self.done

    def solution(self) -> Solution:
        """Return the present state, at the optimal intercept."""
        if not self.done:
            self._settle(1e-3 * self.tol**2 * self._measure()[2])
        loss, gap, _ = self._measure()
        return Solution(self.iterate.weights, loss, gap, self.error(), self.steps)

    def error(self) -> float:
        """Return the bound of |W - W*| / |W|, which holds at the optimal intercept."""
        _, gap, penalty = self._measure()
        return float((gap / penalty) ** 0.5) if penalty > 0 else 0.0

    def _measure(self) -> tuple[float, float, float]:
        """Return F, the bound of F - min F, and the penalty."""
        loss = self.objective.loss(self.iterate)
        return loss, self.objective.gap(self.gradient), loss - self.iterate.data_loss

    def _settle(self, gap_tol: float) -> bool:
        """Optimize the intercept; return whether it moved."""
        settled = self.objective.newton_intercept(self.iterate, gap_tol)
        if settled is self.iterate:
            return False
        self.iterate, self.gradient = settled, self.objective.gradient(settled)
        return True

    def _step(self) -> None:
        """Take one step, or settle the intercept where the bound is reached or no step descends."""
        _, gap, penalty = self._measure()
        gap_tol = self.tol**2 * penalty
        if gap < 0.9 * self.smallest_gap:
            self.smallest_gap, self.steps_since = gap, 0
        else:
            self.steps_since += 1
        stop = gap <= gap_tol or self.steps_since > PATIENCE
        trial = None if stop else _search(self.objective, self.iterate, self.gradient, self._direction())
        if trial is None and self.memory and not stop:  # the kept pairs mislead
            self.memory.clear()
        elif trial is None:
            self.done = not self._settle(1e-3 * gap_tol)
        else:
            self._accept(trial)

    def _accept(self, trial: Iterate) -> None:
        """Move to a trial point and update the memory and the preconditioner."""
        self.steps += 1
        if self.steps % RECOMPUTE == 0:
            trial = self.objective.at(trial.weights)
        gradient = self.objective.gradient(trial)
        s, y = trial.weights - self.iterate.weights, gradient - self.gradient
        if (sy := dot(s, y)) > 0:
            self.memory = [*self.memory[1 - MEMORY :], _Pair(s, y, sy)]
        self.iterate, self.gradient = trial, gradient
        if self.steps % REFRESH == 0:
            self.precondition = Preconditioner(self.objective, trial)

    def _direction(self) -> Floats:
        """Return the L-BFGS direction: the two-loop recursion around the preconditioner, scaled to the last pair."""
        rest, factors = self.gradient, []
        for pair in reversed(self.memory):
            factors.append(dot(pair.s, rest) / pair.sy)
            rest = rest - factors[-1] * pair.y
        direction = self.precondition(rest)
        if self.memory:
            last = self.memory[-1]
            yHy = dot(last.y, self.precondition(last.y))
            direction = direction * (last.sy / yHy if yHy > 0 else 1.0)
        for pair, factor in zip(self.memory, reversed(factors), strict=True):
            direction = direction + (factor - dot(pair.y, direction) / pair.sy) * pair.s
        return -direction


def approach(objective: Objective, tol: float, max_iter: int) -> Descent:
    """Solve along a rising path of C up to the present one, for fits that fail without it.

    Where classes are separable and the penalty is weak, steps from zero overshoot into saturated probabilities, which
    have no curvature left.
    """
    strength, history = objective.strength, list[Iterate]()
    for power in range(6, -1, -1):
        objective.set_penalty(strength * 10.0**power)
        descent = Descent(objective, warm_start(objective, history), tol)
        descent.run(max_iter)
        history = [*history[-2:], descent.iterate]
    return descent


def _search(objective: Objective, iterate: Iterate, gradient: Floats, direction: Floats) -> Iterate | None:
    """Return the point along a direction where the slope has fallen to a fourth; None where F does not fall.

    Regula falsi on the slope, which is less sensitive to rounding than F itself. The slope at an end that stays for
    several trials is halved (the Illinois method, Dowell & Jarratt 1971): a steep one would hold the trials back near
    the other end. Where the trials run out, the last point at which F has fallen is returned.
    """
    logits = objective.logits(direction)
    first = dot(gradient, direction)
    if not first < 0:
        return None
    penalty_direction = objective.penalty * direction
    linear, quadratic = dot(penalty_direction, iterate.weights), dot(penalty_direction, direction)
    # A loss is a difference of logits, so its rounding error is theirs.
    loss_noise = objective.eps * float(np.amax(abs(iterate.logits), 0) @ objective.sample_weight)
    length, low, high = 1.0, (0.0, first), None
    fallen, low_moved, high_moved = None, 0, 0
    for number in range(MAX_TRIALS):
        trial = objective.evaluate(iterate.weights, iterate.logits + length * logits)
        slope = objective.slope(trial, logits) + linear + length * quadratic
        rise = trial.data_loss - iterate.data_loss + length * linear + 0.5 * length**2 * quadratic
        falls = rise <= 1e-4 * length * first + loss_noise
        if falls and abs(slope) <= 0.25 * -first:
            trial.weights = iterate.weights + length * direction
            return trial
        if falls and slope < 0:
            low, fallen, low_moved = (length, slope), (length, trial), number
            if high is not None and number - high_moved >= STUCK:
                high = (high[0], high[1] / 2)
        else:
            high, high_moved = (length, max(slope, 1e-3 * -first)), number
            if number - low_moved >= STUCK:
                low = (low[0], low[1] / 2)
        if high is None:
            grown = length * first / (first - slope) if slope > first else 2 * length
            length = min(max(grown, 1.2 * length), 4 * length)
        else:
            length = low[0] + (high[0] - low[0]) * -low[1] / (high[1] - low[1])
    if fallen is None:
        return None
    length, trial = fallen
    trial.weights = iterate.weights + length * direction
    return trial


def warm_start(objective: Objective, history: Sequence[Iterate]) -> Iterate:
    """Return a starting point from earlier solutions of the path.

    Newton's method in the plane through the last solution along the last two moves, whose logits are known; the
    result has no higher loss than the last solution.

    Parameters
    ----------
    objective : Objective
        With the new penalty.
    history : sequence of Iterate
        Up to three solutions, the last one last.
    """
    if not history:
        return objective.zero()
    iterate = history[-1]
    moves = [(new.weights - old.weights, new.logits - old.logits) for old, new in pairwise(history)]
    if not moves:
        return iterate
    penalty = np.array([[dot(objective.penalty * a, b) for a, _ in moves] for b, _ in moves])
    for _ in range(5):
        p = objective.probability(iterate)
        expected = [p * logits for _, logits in moves]
        means = [values.sum(0) for values in expected]
        curvature = penalty.copy()
        for i, j in combinations_with_replacement(range(len(moves)), 2):
            product = dot(expected[i] * objective.sample_weight, moves[j][1])
            curvature[i, j] += product - float((means[i] * means[j]) @ objective.sample_weight)
            curvature[j, i] = curvature[i, j]
        weighted = iterate.residual * objective.sample_weight
        slope = np.array([dot(weighted, logits) + dot(objective.penalty * a, iterate.weights) for a, logits in moves])
        step = -np.linalg.lstsq(curvature, slope, rcond=1e-6)[0]
        trial = _backtrack(objective, iterate, moves, step)
        if trial is None:
            break
        gain, iterate = objective.loss(iterate) - objective.loss(trial), trial
        if gain < 1e-3 * objective.loss(iterate):
            break
    return iterate


def _backtrack(
    objective: Objective, iterate: Iterate, moves: Sequence[tuple[Floats, Floats]], step: Floats
) -> Iterate | None:
    """Take a step in the plane of the moves, halved until F falls; None where it does not."""
    for _ in range(MAX_TRIALS):
        weights, logits = iterate.weights, iterate.logits
        for length, move in zip(step.tolist(), moves, strict=True):
            weights, logits = weights + length * move[0], logits + length * move[1]
        trial = objective.evaluate(weights, logits)
        if objective.loss(trial) < objective.loss(iterate):
            return trial
        step = step / 2
    return None
