"""Simulated runs: two heads whose true difference is known, and how often a comparison recovers it.

A source has a difficulty u ~ N(0, 1) shared by both heads; its clips are recognized with probability Φ(a + u) by one
head and Φ(b + u) by the other, and over all sources with probability Φ(a / √2) and Φ(b / √2).
"""

from __future__ import annotations

import numpy as np
from fake_runs import softmax
from scipy.stats import norm

from actionvit.pipeline.reporting.compare import compare
from actionvit.pipeline.reporting.text import is_shown
from actionvit.pipeline.runs import Predictions


def planted(
    random: np.random.Generator, levels: tuple[float, float], sources: int, classes: int = 4
) -> list[Predictions]:
    """Predictions of two heads for clips from sources of one to six clips, in one split."""
    sizes = random.integers(1, 7, sources)
    source = np.repeat(np.arange(sources), sizes)
    difficulty = random.standard_normal(sources)[source]
    true = random.integers(0, classes, len(source))
    made = []
    for level in levels:
        hit = random.uniform(size=len(source)) < norm.cdf(level + difficulty)
        taken = np.where(hit, true, (true + random.integers(1, classes, len(source))) % classes)
        made.append(
            Predictions(
                id=np.array([f"v{n}" for n in range(len(source))]),
                split=np.full(len(source), "one"),
                true=true,
                scores=softmax(4.0 * np.eye(classes)[taken]),
                source=np.array([f"s{n}" for n in source]),
                class_names=tuple(f"c{n}" for n in range(classes)),
            )
        )
    return made


def true_difference(levels: tuple[float, float]) -> float:
    return float(norm.cdf(levels[1] / np.sqrt(2)) - norm.cdf(levels[0] / np.sqrt(2)))


def recovery(levels: tuple[float, float], *, tries: int, sources: int) -> dict[str, float]:
    """How often the intervals contain the true difference, and how often runs or any class are called different."""
    truth = true_difference(levels)
    random = np.random.default_rng(0)
    counts = dict.fromkeys(("top1", "mean_class_accuracy", "p", "shown", "classes", "each_class"), 0.0)
    for _ in range(tries):
        one = compare(*planted(random, levels, sources))
        for name in ("top1", "mean_class_accuracy"):
            delta = one.delta[name]
            counts[name] += delta.ci95[0] <= truth <= delta.ci95[1]
        inside = [row.ci95[0] <= truth <= row.ci95[1] for row in one.per_class if row.ci95]
        counts["each_class"] += float(np.mean(inside))
        counts["p"] += one.delta["top1"].p < 0.05
        counts["shown"] += is_shown(one)
        counts["classes"] += bool(one.classes.shown)
    return {name: float(count / tries) for name, count in counts.items()}
