"""L-BFGS around a preconditioner, for the objective of `softmax`; `logistic` says why it is built like this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from actionvit.heads.logistic.objective import Floats, Point, Preconditioner, Problem, dot

MEMORY = 10
"""Steps that L-BFGS remembers."""

REFRESH = 3
"""Steps after which G is taken anew."""

RECOMPUTE = 30
"""Steps after which logits are multiplied out again, so that rounding does not pile up."""

PATIENCE = 20
"""Steps without a better bound after which rounding has won, and the solution is as good as the precision."""

TRIALS = 10
"""Lengths tried along a line."""


@dataclass(frozen=True, slots=True)
class Solution:
    """Where the solver stopped."""

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


@dataclass(frozen=True, slots=True)
class _Step:
    """A step that L-BFGS remembers."""

    moved: Floats
    turned: Floats
    """Change of the gradient."""
    product: float
    """Of the two, positive."""


def minimise(problem: Problem, point: Point, tol: float, max_iter: int) -> tuple[Point, Solution]:
    """Descend from a point until its bound will do."""
    memory: list[_Step] = []
    gradient, precondition = problem.gradient(point), Preconditioner(problem, point)
    best, since, steps = np.inf, 0, 0
    while True:
        loss, gap = problem.loss(point), problem.gap(gradient)
        enough = tol**2 * (loss - point.data_loss)
        best, since = (gap, 0) if gap < 0.9 * best else (best, since + 1)
        stop = gap <= enough or steps == max_iter or since > PATIENCE
        moved = None if stop else _search(problem, point, gradient, _direction(gradient, precondition, memory))
        if moved is None and memory and not stop:  # what is remembered misleads
            memory.clear()
            continue
        if moved is None:
            settled = problem.settle(point, 1e-3 * enough)
            if settled is point:
                break
            point, gradient = settled, problem.gradient(settled)
            continue
        steps += 1
        if steps % RECOMPUTE == 0:
            moved = problem.at(moved.weights, moved.weights @ problem.rows.T)
        after = problem.gradient(moved)
        product = dot(moved.weights - point.weights, after - gradient)
        if product > 0:
            memory = [*memory[1 - MEMORY :], _Step(moved.weights - point.weights, after - gradient, product)]
        point, gradient = moved, after
        if steps % REFRESH == 0:
            precondition = Preconditioner(problem, point)
    size = loss - point.data_loss
    return point, Solution(point.weights, loss, gap, (gap / size) ** 0.5 if size > 0 else 0.0, steps)


def _direction(gradient: Floats, precondition: Preconditioner, memory: Sequence[_Step]) -> Floats:
    """Return the L-BFGS direction: the two-loop recursion around the preconditioner, scaled to the last step."""
    rest, shares = gradient, []
    for step in reversed(memory):
        shares.append(dot(step.moved, rest) / step.product)
        rest = rest - shares[-1] * step.turned
    direction = precondition(rest)
    if memory:
        last = memory[-1]
        bent = dot(last.turned, precondition(last.turned))
        direction = direction * (last.product / bent if bent > 0 else 1.0)
    for step, share in zip(memory, reversed(shares), strict=True):
        direction = direction + (share - dot(step.turned, direction) / step.product) * step.moved
    return -direction


def _search(problem: Problem, point: Point, gradient: Floats, direction: Floats) -> Point | None:
    """Go along a direction until the slope has fallen to a fourth; None where F cannot be seen to fall.

    Regula falsi on the slope, which rounding troubles later than F itself.
    """
    logits = direction @ problem.rows.T
    first = dot(gradient, direction)
    if not first < 0:
        return None
    bend = problem.penalty * direction
    tilt, bow = dot(bend, point.weights), dot(bend, direction)
    start = point.data_loss
    # A loss is a difference of logits: it is known as well as they are.
    blur = problem.eps * float(np.amax(abs(point.logits), 0) @ problem.sample_weight)
    length, low, high = 1.0, (0.0, first), None
    for _ in range(TRIALS):
        trial = problem.at(point.weights, point.logits + length * logits)
        slope = problem.slope(trial, logits) + tilt + length * bow
        rise = trial.data_loss - start + length * tilt + 0.5 * length**2 * bow
        falls = rise <= 1e-4 * length * first + blur
        if falls and abs(slope) <= 0.25 * -first:
            trial.weights = point.weights + length * direction
            return trial
        if falls and slope < 0:
            low = (length, slope)
        else:
            high = (length, max(slope, 1e-3 * -first))
        if high is None:
            grown = length * first / (first - slope) if slope > first else 2 * length
            length = min(max(grown, 1.2 * length), 4 * length)
        else:
            length = low[0] + (high[0] - low[0]) * -low[1] / (high[1] - low[1])
    return None


def start_of(problem: Problem, trail: Sequence[Point]) -> Point:
    """Return where to start: the best point of the plane through the last solution along the last two moves.

    Newton's method in two unknowns, on logits that are known: F falls or the last solution stays.
    """
    if not trail:
        return problem.zero()
    point = trail[-1]
    moves = [(new.weights - old.weights, new.logits - old.logits) for old, new in pairwise(trail)]  # two at most
    if not moves:
        return point
    penalty = np.array([[dot(problem.penalty * one, other) for one, _ in moves] for other, _ in moves])
    for _ in range(5):
        p = problem.probability(point)
        means = [np.einsum("cn,cn->n", p, logits) for _, logits in moves]
        curvature = penalty.copy()
        for i, (_, one) in enumerate(moves):
            for j, (_, other) in enumerate(moves):
                spread = np.einsum("cn,cn,cn->n", p, one, other) - means[i] * means[j]
                curvature[i, j] += float(spread @ problem.sample_weight)
        slope = np.array(
            [problem.slope(point, logits) + dot(problem.penalty * one, point.weights) for one, logits in moves]
        )
        step = -np.linalg.lstsq(curvature, slope, rcond=1e-6)[0]
        moved = _halve(problem, point, moves, step)
        if moved is None:
            break
        gain, point = problem.loss(point) - problem.loss(moved), moved
        if gain < 1e-3 * problem.loss(point):
            break
    return point


def _halve(problem: Problem, point: Point, moves: Sequence[tuple[Floats, Floats]], step: Floats) -> Point | None:
    """Step within the plane, halved until F falls."""
    for _ in range(TRIALS):
        weights, logits = point.weights, point.logits
        for share, move in zip(step.tolist(), moves, strict=True):
            weights, logits = weights + share * move[0], logits + share * move[1]
        moved = problem.at(weights, logits)
        if problem.loss(moved) < problem.loss(point):
            return moved
        step = step / 2
    return None
