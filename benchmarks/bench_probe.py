"""The standard grid of linear probes against scikit-learn's LogisticRegressionCV, on the same folds in the same run.

    python benchmarks/bench_probe.py                      # the whole grid; scikit-learn on one of its 12 parts
    python benchmarks/bench_probe.py --peer-parts 12      # scikit-learn on all of it (an hour)
    python benchmarks/bench_probe.py --clips 400 --width 64 --classes 10   # a glance

The grid: 2 variants × 3 splits × 2 weightings, each 7 values of C × 5 folds by source and a refit: 420 fits, 12 refits,
at HMDB51's size. The embeddings are drawn (seeded): class means and films in noise whose spectrum falls off as that of
real embeddings; they are not separable by much, which is the slow case. Three things are checked as well as timed: the
loss of every one of the fits against the peer's, the C that wins, and the refitted heads' predictions of test clips.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import warnings
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info, threadpool_limits

from actionvit.heads.linear import SCAN_TOL, LinearProbe
from actionvit.heads.logistic import Factorised
from actionvit.heads.selection import assign_folds, select
from actionvit.heads.weighting import class_weights

GRID = LinearProbe.default_grid["C"]
WEIGHTINGS = ("none", "balanced")
PEER_TOLS = (1e-4, 1e-6)
"""scikit-learn's default, which stops short of the optimum, and one that gets there for all but the largest C."""


def drawn(clips: int, width: int, classes: int, *, films: int, seed: int):
    """Embeddings (clips, width), class numbers, films."""
    rng = np.random.default_rng(seed)
    film = rng.integers(0, films, clips)
    y = rng.permutation(np.arange(clips) % classes)
    spectrum = (1 + np.arange(width)) ** -0.5
    rotation = np.linalg.qr(rng.normal(size=(width, width)))[0]
    means = 0.6 * rng.normal(size=(classes, width))
    means[:, 60:] = 0  # classes differ in the leading directions alone
    X = (means[y] + 0.5 * rng.normal(size=(films, width))[film] + rng.normal(size=(clips, width))) * spectrum @ rotation
    return X.astype(np.float32), y, film


def losses_of(X, y, weight, coefs, intercepts):
    """Mean objective of each C, in double precision."""
    found = []
    for C, coef, intercept in zip(GRID, coefs, intercepts, strict=True):
        logits = X.astype(np.float64) @ coef.T.astype(np.float64) + intercept
        logits -= logits.max(axis=1, keepdims=True)
        losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y]
        found.append((weight @ losses + 0.5 / C * (coef.astype(np.float64) ** 2).sum()) / len(y))
    return np.array(found)


def own_path(X, y, weight):
    """Coefficients along the grid on rows that are standardised already, as selection finds them."""
    factorised, solution, found = Factorised(X), None, []
    for C in GRID:
        start = None if solution is None else solution.weights
        solution = factorised.solve(y, weight, C, start=start, tol=SCAN_TOL)
        found.append(factorised.unrotate(solution.weights))
    return [coef for coef, _ in found], [intercept for _, intercept in found]


def compare(part, tol: float, jobs: int) -> dict:
    """One part (a variant, split and weighting) with scikit-learn: time, every loss, the winner's predictions."""
    X, y, film, test, weighting = part
    fold = assign_folds(y, film, folds=5, seed=0)
    folds = [(np.flatnonzero(fold != one), np.flatnonzero(fold == one)) for one in range(5)]
    scaler = StandardScaler().fit(X)
    scaled = scaler.transform(X)
    peer = LogisticRegressionCV(
        Cs=list(GRID),
        cv=folds,
        class_weight=None if weighting == "none" else weighting,
        tol=tol,
        max_iter=1000,
        n_jobs=jobs,
        l1_ratios=(0,),
        use_legacy_attributes=False,
        scoring="accuracy",
    )
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        peer.fit(scaled, y)
    seconds = time.perf_counter() - start
    excess = []
    paths = np.asarray(peer.coefs_paths_).reshape(5, len(GRID), len(peer.classes_), -1)
    with threadpool_limits(1):
        for (train, _), path in zip(folds, paths, strict=True):
            weight = class_weights(y[train], len(peer.classes_), weighting)[y[train]]
            theirs = losses_of(scaled[train], y[train], weight, path[..., :-1], path[..., -1])
            ours = losses_of(scaled[train], y[train], weight, *own_path(scaled[train], y[train], weight))
            excess.append((ours - theirs) / theirs)
        C = float(np.ravel(peer.C_)[0])
        refit = LinearProbe(C=C, class_weight=weighting).fit(X, y)
    agree = float(np.mean(refit.predict(test) == peer.predict(scaler.transform(test))))
    return {
        "seconds": seconds,
        "excess_max": float(np.max(excess)),
        "excess_min": float(np.min(excess)),
        "agree": agree,
        "C": C,
    }


def machine() -> dict:
    blas = [f"{one['internal_api']} {one['version']} {one.get('architecture', '')}" for one in threadpool_info()]
    cpu = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine())
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), "blas": sorted(set(blas))}


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=3570)
    parser.add_argument("--test", type=int, default=1530)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--classes", type=int, default=51)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--peer-parts", type=int, default=1, help="how many of the 12 parts scikit-learn does as well")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "probe.json")
    options = parser.parse_args()
    parts = []
    for variant in range(2):
        for split in range(3):
            X, y, film = drawn(
                options.clips + options.test,
                options.width,
                options.classes,
                films=options.clips // 2,
                seed=10 * split + variant,
            )
            n = options.clips
            parts += [(X[:n], y[:n], film[:n], X[n:], weighting) for weighting in WEIGHTINGS]

    def fit(part):
        X, y, film, test, weighting = part
        found = select(LinearProbe(class_weight=weighting), X, y, groups=film)
        return found.setting["C"], found.head.predict(test)

    fit((*(array[:300] for array in parts[0][:3]), parts[0][3][:9], "none"))  # libraries loaded, pools started
    start, cpu = time.perf_counter(), time.process_time()
    with threadpool_limits(1):
        own = Parallel(n_jobs=options.jobs, prefer="threads")(delayed(fit)(part) for part in parts)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peers = [peer_row(parts, tol, options) for tol in PEER_TOLS]
    report(options, seconds, cpu, own, peers)


def peer_row(parts: list, tol: float, options) -> dict:
    """scikit-learn at one tolerance: seconds for the grid, from as many parts as were asked for."""
    found = [compare(part, tol, options.jobs) for part in parts[: options.peer_parts]]
    return {
        "peer_tol": tol,
        "seconds": round(len(parts) / len(found) * sum(one["seconds"] for one in found), 1),
        "parts_measured": len(found),
        "own_loss_above_peers": max(one["excess_max"] for one in found),
        "peer_loss_above_own": -min(one["excess_min"] for one in found),
        "test_predictions_agree": min(one["agree"] for one in found),
        "chosen_C": [one["C"] for one in found],
    }


def report(options, seconds: float, cpu: float, own: list, peers: list[dict]) -> None:
    """Print the table and write it."""
    result = {
        "grid": f"420 fits, 12 refits, {options.clips} × {options.width} × {options.classes}, {options.jobs} threads",
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "chosen_C": [C for C, _ in own],
        "peers": [{**one, "times_faster": round(one["seconds"] / seconds, 1)} for one in peers],
    }
    for name, value in result.items():
        if name != "peers":
            print(f"{name:24} {value}")
    for one in result["peers"]:
        print("LogisticRegressionCV")
        for name, value in one.items():
            print(f"  {name:22} {value}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"machine": machine(), **result}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
