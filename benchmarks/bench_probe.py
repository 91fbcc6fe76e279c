"""The standard grid of linear probes against scikit-learn's LogisticRegressionCV, on the same folds in the same run.

    python benchmarks/bench_probe.py                      # the whole grid twice; scikit-learn on 2 of its 12 parts
    python benchmarks/bench_probe.py --peer-parts 12      # scikit-learn on all of it (hours)
    python benchmarks/bench_probe.py --clips 400 --width 64 --classes 10   # a quick check

The grid: 2 variants × 3 splits × 2 weightings, each 7 values of C × 5 folds by source and a refit: 420 fits, 12 refits,
at HMDB51's size. Embeddings are drawn (seeded) from a model of class, film and clip effects whose spectra were measured
on CLIP embeddings of 523 HMDB51 clips (analysis of variance in the eigenbasis of the standardized features, smoothed
by exponentials). The class effect is scaled so that the accuracy on clips of unseen films equals that on the real
clips (`like clip`, 0.7), or is nearly 1 (`easy`). In addition to the time, the benchmark compares the loss of every
fit with the best loss of either package, the selected C, and the predictions of the refitted heads on test clips.

scikit-learn stops by the largest entry of the gradient, a weak criterion for large C: at its default tolerance the
losses are far above the optimum. It is therefore timed at its default, and at the tolerance (in powers of ten) at
which all its losses are within 1e-4 of the best, as required of this package. scikit-learn uses double precision, in
which it needs fewer steps, and one process per core.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import machine
import numpy as np
from joblib import Parallel, delayed
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info, threadpool_limits

from actionvit.heads.linear import LinearProbe
from actionvit.heads.linear_grid import GRID_TOL
from actionvit.heads.logistic.path import RotatedData
from actionvit.heads.selection import assign_folds, grid_search
from actionvit.heads.weighting import class_weights

HERE = Path(__file__).resolve().parent
GRID = LinearProbe.default_grid["C"]
WEIGHTINGS = ("none", "balanced")
PEER_TOLS = (1e-4, 1e-5, 1e-6, 1e-7)
SAME = 1e-4
"""Maximum relative excess over the best loss at which two optima count as the same."""
DATA = {"like clip": 0.3, "easy": 1.0}
"""Fraction of the measured class effect; real classes differ along fewer directions than independent ones."""


def drawn(clips: int, width: int, classes: int, *, share: float, seed: int):
    """Draw embeddings (clips, width), class numbers and film numbers."""
    rng = np.random.default_rng(seed)
    y = np.sort(np.arange(clips) % classes)
    film = np.unique([y, rng.integers(0, max(2, round(clips / classes / 2.33)), clips)], axis=1, return_inverse=True)[1]
    place = 768 / width * np.arange(width)
    class_effect, film_effect, clip_effect = (
        48 * np.exp(-place / 7) + 0.02 * (place < 60),
        8.5 * np.exp(-place / 45),
        1.6 * np.exp(-place / 105) + 0.003,
    )
    X = (
        (rng.normal(size=(classes, width)) * np.sqrt(share * class_effect))[y]
        + (rng.normal(size=(film.max() + 1, width)) * np.sqrt(film_effect))[film]
        + rng.normal(size=(clips, width)) * np.sqrt(clip_effect)
    )
    X = X @ np.linalg.qr(rng.normal(size=(width, width)))[0]
    return X.astype(np.float32), y, film


def parts_of(options, share: float) -> list:
    """Return (training X, y and film, test X, weighting) for each variant, split and weighting.

    A third of the films are test films.
    """
    parts = []
    for variant in range(2):
        X, y, film = drawn(options.clips + options.test, options.width, options.classes, share=share, seed=variant)
        for split in range(3):
            order = np.random.default_rng([variant, split]).permutation(film.max() + 1)[film].argsort(kind="stable")
            test, train = order[: options.test], np.sort(order[options.test :])
            parts += [(X[train], y[train], film[train], X[test], weighting) for weighting in WEIGHTINGS]
    return parts


def losses_of(X, y, weight, coefs, intercepts):
    """Return the objective of each C in double precision."""
    rows = []
    for C, coef, intercept in zip(GRID, coefs, intercepts, strict=True):
        logits = X.astype(np.float64) @ coef.T.astype(np.float64) + intercept
        logits -= logits.max(axis=1, keepdims=True)
        losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y]
        rows.append(weight @ losses + 0.5 / C * (coef.astype(np.float64) ** 2).sum())
    return np.array(rows)


def folds_of(part) -> tuple[list, list]:
    """Return (training rows, validation rows) and the weights of the training rows, for each fold."""
    _, y, film, _, weighting = part
    fold = assign_folds(y, film, folds=5, seed=0)
    folds = [(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in range(5)]
    of_class = class_weights(y, int(y.max()) + 1, weighting)  # from all training clips, as in scikit-learn
    return folds, [of_class[y[train]] for train, _ in folds]


def own_losses(part, jobs: int) -> np.ndarray:
    """Return the objectives that the grid search of this package reaches, (folds, values of C)."""
    X, y = part[:2]
    scaled = StandardScaler().fit_transform(X)

    def losses(train, weight) -> np.ndarray:
        data = RotatedData(scaled[train])
        path = data.path(y[train], weight, GRID, tol=GRID_TOL)
        coefs, intercepts = zip(*(data.to_input_space(solution.weights) for solution in path), strict=True)
        return losses_of(scaled[train], y[train], weight, coefs, intercepts)

    folds, weights = folds_of(part)
    with threadpool_limits(1):
        fits = (delayed(losses)(train, weight) for (train, _), weight in zip(folds, weights, strict=True))
        return np.array(Parallel(n_jobs=jobs, prefer="threads")(fits))


def compare(part, options) -> list[dict]:
    """Compare one part with scikit-learn at every tolerance: time, all losses, predictions of the selected heads."""
    X, y, _, test, weighting = part
    scaler = StandardScaler().fit(X)
    scaled = scaler.transform(X)
    folds, weights = folds_of(part)
    ours = own_losses(part, options.jobs)
    best_losses, theirs = [], []
    for tol in options.peer_tols:
        peer = LogisticRegressionCV(
            Cs=list(GRID),
            cv=folds,
            class_weight=None if weighting == "none" else weighting,
            tol=tol,
            max_iter=5000,
            n_jobs=options.jobs,
            l1_ratios=(0,),
            use_legacy_attributes=False,
            scoring="accuracy",
        )
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            peer.fit(scaled.astype(np.float64), y)
        seconds = time.perf_counter() - start
        paths = np.asarray(peer.coefs_paths_).reshape(5, len(GRID), int(y.max()) + 1, -1)
        theirs.append(
            [
                losses_of(scaled[train], y[train], weight, path[..., :-1], path[..., -1])
                for (train, _), weight, path in zip(folds, weights, paths, strict=True)
            ]
        )
        C = float(np.ravel(peer.C_)[0])
        refit = LinearProbe(C=C, class_weight=weighting).fit(X, y)
        agree = float(np.mean(refit.predict(test) == peer.predict(scaler.transform(test).astype(np.float64))))
        best_losses.append({"tol": tol, "seconds": seconds, "C": C, "agree": agree})
    best = np.minimum(ours, np.min(theirs, axis=0))
    for entry, losses in zip(best_losses, theirs, strict=True):
        entry["excess"] = float((np.array(losses) / best - 1).max())
        entry["own excess"] = float((ours / best - 1).max())
    return best_losses


class Fitted(NamedTuple):
    """Result of one part of the grid."""

    C: float
    score: float


def run_grid(parts, jobs: int) -> tuple[list[Fitted], float, float]:
    """Run the whole grid as `actionvit probe` does; return the chosen C and scores, seconds, CPU seconds."""

    def fit(X, y, film, test, weighting) -> Fitted:
        result = grid_search(LinearProbe(class_weight=weighting), X, y, groups=film)
        result.head.predict(test)
        return Fitted(result.best_params["C"], max(result.record["scores"]))

    fit(*(array[::9] for array in parts[0][:4]), "none")  # load libraries and start pools
    start, cpu = time.perf_counter(), time.process_time()
    with threadpool_limits(1):
        results = Parallel(n_jobs=jobs, prefer="threads")(delayed(fit)(*part) for part in parts)
    return results, time.perf_counter() - start, time.process_time() - cpu


def measure(share: float, options) -> dict:
    """Measure one kind of data: the whole grid, and scikit-learn at every tolerance on `options.peer_parts` parts."""
    parts = parts_of(options, share)
    fits, seconds, cpu = run_grid(parts, options.jobs)
    compared = [compare(part, options) for part in parts[: options.peer_parts]]
    again = run_grid(parts, options.jobs)[1]  # before and after scikit-learn, to show the load of other processes
    peers = []
    for number, tol in enumerate(options.peer_tols):
        rows = [fold[number] for fold in compared]
        took = len(parts) / len(rows) * sum(row["seconds"] for row in rows)
        peers.append(
            {
                "tol": tol,
                "seconds": round(took, 1),
                "times_slower": round(took / max(seconds, again), 1),
                "loss_above_best": max(row["excess"] for row in rows),
                "same_optimum": max(row["excess"] for row in rows) <= SAME,
                "test_predictions_agree": min(row["agree"] for row in rows),
                "chosen_C": [row["C"] for row in rows],
            }
        )
    return {
        "seconds": [round(seconds, 1), round(again, 1)],
        "cpu_seconds": round(cpu, 1),
        "loss_above_best": max(row["own excess"] for fold in compared for row in fold),
        "accuracy": round(float(np.mean([fit.score for fit in fits])), 3),
        "chosen_C": [fit.C for fit in fits],
        "peer_parts_measured": len(compared),
        "LogisticRegressionCV": peers,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=3570)
    parser.add_argument("--test", type=int, default=1530)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--classes", type=int, default=51)
    parser.add_argument("--jobs", type=int, default=2, help="threads")
    parser.add_argument("--peer-parts", type=int, default=2, help="number of parts (of 12) for scikit-learn")
    parser.add_argument("--peer-tols", type=float, nargs="+", default=PEER_TOLS, help="scikit-learn's tolerances")
    parser.add_argument("--data", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument("--out", type=Path, help="[default: results/probe.json]")
    options = parser.parse_args()
    grid = f"420 fits, 12 refits, {options.clips} × {options.width} × {options.classes}, {options.jobs} threads"
    blas = [f"{pool['internal_api']} {pool['version']} {pool.get('architecture', '')}" for pool in threadpool_info()]
    described = machine.describe("numpy", "scipy", "scikit-learn")
    result = {"machine": {**described, "blas": sorted(set(blas))}, "grid": grid}
    print(grid)
    for name in options.data:
        record = result[name] = measure(DATA[name], options)
        say(name, record)
    machine.write(options.out or HERE / "results" / "probe.json", result)


def say(name: str, found: dict) -> None:
    """Print the table of one kind of data."""
    print(
        f"\n{name}: {found['seconds'][0]} s, again {found['seconds'][1]} s ({found['cpu_seconds']} s of CPU);"
        f" loss above the best by {found['loss_above_best']:.0e} at most; accuracy {found['accuracy']}"
    )
    print("LogisticRegressionCV tol   seconds   times slower   loss above best   same optimum   predictions agree")
    for row in found["LogisticRegressionCV"]:
        print(
            f"{row['tol']:24.0e} {row['seconds']:9.1f} {row['times_slower']:14.1f}"
            f" {row['loss_above_best']:17.0e} {row['same_optimum']!s:>14} {row['test_predictions_agree']:19.4f}"
        )


if __name__ == "__main__":
    main()
