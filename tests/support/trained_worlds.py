"""Worlds with trained heads: clips of sources, two encoders, heads trained on every split's training set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actionvit.evaluation.clustered import Design

WIDTH = 32
PROTOCOLS = {"5 folds": range(5), "5 folds × 5 seeds": range(25), "3 official splits": range(25, 28)}
"""Rows of `splits` by protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A population of sources, and how its data sets are drawn and heads are trained."""

    sources: int
    classes: int
    sizes: str
    """`even`: 1 to 6 clips per source; `skewed`: up to 40; `one`."""
    accuracy: float
    """Approximate top-1 of a trained head."""
    correlation: float
    """Between the two encoders' noise."""
    head: str
    """`ridge`, `centroid` or `linear` (the package's LinearProbe)."""
    gain: float = 1.0
    """Factor of the second encoder's class separation; 1: equally good by construction."""


def draw(world: World, means: NDArray[np.float64], random: np.random.Generator):
    """Return class (n,), source (n,), class of each source (S,), and both encoders' embeddings (n, D)."""
    S, K, rho = world.sources, world.classes, world.correlation
    sizes = {
        "even": lambda: random.integers(1, 7, S),
        "one": lambda: np.ones(S, int),
        "skewed": lambda: np.minimum(
            1 + random.geometric(0.25, S) + (random.random(S) < 0.15) * random.integers(5, 25, S), 40
        ),
    }[world.sizes]()
    label = random.permutation(np.arange(S) % K)
    source = np.repeat(np.arange(S), sizes)
    y = label[source]

    def pair(rows: int):
        common = random.normal(size=(rows, WIDTH))
        return [np.sqrt(rho) * common + np.sqrt(1 - rho) * random.normal(size=(rows, WIDTH)) for _ in range(2)]

    look, noise = pair(S), pair(len(source))
    scale = (1.0, world.gain)
    return y, source, label, [scale[v] * means[y] + 0.8 * look[v][source] + noise[v] for v in range(2)]


def splits(source, label, classes: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Return which clips train, (28, n): five seeds of five folds by source, then three 70/30 splits by source."""
    train = []
    for _ in range(5):
        fold, place = np.empty(len(label), int), 0
        for k in range(classes):
            members = random.permutation(np.flatnonzero(label == k))
            fold[members] = (np.arange(len(members)) + place) % 5
            place += len(members)
        train += [fold[source] != number for number in range(5)]
    for _ in range(3):
        members = [random.permutation(np.flatnonzero(label == k)) for k in range(classes)]
        test = np.concatenate([m[: max(1, round(0.3 * len(m)))] for m in members])
        train.append(~np.isin(source, test))
    return np.array(train)


def logits(X, y, train, classes: int, head: str) -> NDArray[np.float64]:
    """Return the logits of all clips from a head per training set, (J, n, C)."""
    if head == "linear":
        from actionvit.heads.linear import LinearProbe

        out = np.full((len(train), len(y), classes), -20.0)
        for number, rows in enumerate(train):
            fitted = LinearProbe(C=0.01).fit(X[rows], y[rows])
            out[number][:, fitted.classes_] = fitted.predict_log_proba(X)
        return out
    onehot, M = np.eye(classes)[y], train.astype(float)
    count, sx, sy = M.sum(1), M @ X, M @ onehot
    G = np.stack([X[rows].T @ X[rows] for rows in train])
    C = np.stack([X[rows].T @ onehot[rows] for rows in train])
    if head == "centroid":
        mean = C / np.maximum(sy, 1)[:, None]
        bias = np.where(sy > 0, -0.5 * (mean**2).sum(1), -1e9)
        return 0.3 * (np.einsum("nd,jdk->jnk", X, mean, optimize=True) + bias[:, None])
    mx, my = sx / count[:, None], sy / count[:, None]
    G -= count[:, None, None] * mx[:, :, None] * mx[:, None]
    C -= count[:, None, None] * mx[:, :, None] * my[:, None]
    W = np.linalg.solve(G + 10 * np.eye(X.shape[1]), C)
    return 4 * (np.einsum("nd,jdk->jnk", X, W, optimize=True) + (my - np.einsum("jd,jdk->jk", mx, W))[:, None])


def softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    power = np.exp(values - values.max(-1, keepdims=True))
    return power / power.sum(-1, keepdims=True)


def class_means(world: World) -> NDArray[np.float64]:
    """Return class means (C, D) that give about the world's accuracy."""
    base = np.random.default_rng(5).normal(size=(world.classes, WIDTH))
    low, high = 0.01, 6.0
    for _ in range(12):
        scale, correct = np.sqrt(low * high), []
        for seed in range(4):
            random = np.random.default_rng(seed)
            y, source, label, X = draw(world, scale * base, random)
            train = splits(source, label, world.classes, random)[:5]
            head = "ridge" if world.head == "linear" else world.head
            best = logits(X[0], y, train, world.classes, head).argmax(-1)
            correct.append(np.mean([(best[j] == y)[~train[j]].mean() for j in range(5)]))
        low, high = (scale, high) if np.mean(correct) < world.accuracy else (low, scale)
    return scale * base


def trained_runs(world: World, means: NDArray[np.float64], seed: int):
    """Yield for each protocol its name, the design of its test results and both encoders' scores (M, C)."""
    random = np.random.default_rng([world.sources, world.classes, seed])
    y, source, label, X = draw(world, means, random)
    train = splits(source, label, world.classes, random)
    scores = [softmax(logits(x, y, train, world.classes, world.head)) for x in X]
    for name, numbers in PROTOCOLS.items():
        rows = [np.flatnonzero(~train[j]) for j in numbers]
        split = np.concatenate([np.full(len(r), f"s{j}") for j, r in zip(numbers, rows, strict=True)])
        clip = np.concatenate(rows)
        design = Design(
            split=split,
            true=y[clip],
            cluster=source[clip],
            clip=clip,
            n_train={f"s{j}": int(train[j].sum()) for j in numbers},
        )
        yield name, design, [np.concatenate([s[j, r] for j, r in zip(numbers, rows, strict=True)]) for s in scores]
