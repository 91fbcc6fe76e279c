"""Test whether fine-tuning learns the order of frames, on pairs of motions that are each other's time reversal.

    python experiments/order_pairs.py --out order-pairs.json      # 25 minutes on two cores that others used too

For each pair: the clips of `actionvit data draw` that show one of its motions, on the first of three folds grouped by
source. Compared are a linear probe on the untrained `tiny`, the untrained `tiny` fine-tuned end to end, and the latter
on the same test clips with the sampled frames in random order, where it must fall to chance level. Only public commands
are used; clips and runs stay below `--work`.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from actionvit.features.decoding import DecodePolicy, decode
from actionvit.features.sampling import clip_indices
from actionvit.pipeline.datasets.synthetic.dataset import DrawnClip, plan_clips, write_clip
from actionvit.pipeline.prediction.predictor import load_predictor
from actionvit.pipeline.runs import Run, measure, read_run

PAIRS = ("move_left,move_right",)
SIZE = "64"
TRAINING = (
    "--train all --lr 1e-3 --layer-decay 1 --stochastic-depth 0 --label-smoothing 0 --head-init zero"
    " --min-crop-area 0.8 --color-ops 0 --sampler balanced --patience 4 --frame-cache-gib 4"
)
METRIC = "mean_class_accuracy"
"""Chance level 50 %, for any numbers of test clips per class."""


def draw(job: tuple[Path, DrawnClip]) -> None:
    """Write one clip if it does not exist."""
    root, clip = job
    if not (root / clip.motion / clip.name).exists():
        write_clip(root, clip)


def draw_pair(root: Path, motions: Sequence[str], clips: int) -> int:
    """Draw the clips of these motions among those of `data draw --count`; return their number."""
    jobs = [(root, clip) for clip in plan_clips(clips=clips) if clip.motion in motions]
    with ProcessPoolExecutor() as pool:
        list(pool.map(draw, jobs, chunksize=8))
    return len(jobs)


def call(*arguments: str) -> tuple[float, float]:
    """Run an actionvit command; return its wall time and its CPU time in seconds."""
    click.echo(f"$ actionvit {' '.join(arguments)}")
    began, before = time.perf_counter(), sum(os.times()[2:4])
    subprocess.run([sys.executable, "-m", "actionvit", *arguments], check=True)
    return time.perf_counter() - began, sum(os.times()[2:4]) - before


def shuffled(run: Run, root: Path, seed: int = 0) -> dict[str, Any]:
    """Return the metrics of a run on its test clips with their frames in random order."""
    predictor, rng = load_predictor(run), np.random.default_rng(seed)
    (source,) = predictor.inputs
    encoder = source.job.load("cpu")
    scores = []
    for id in run.predictions.id:
        frames = decode(root / id, (source.job.spec,), DecodePolicy())
        index = np.unique(clip_indices(frames.count, source.job.spec))
        data = frames.data[frames.positions(index)][rng.permutation(len(index))]
        rows = encoder.submit([replace(frames, data=data, index=index)]).result()
        scores.append(predictor.classify([source.embeddings(rows)])[0])
    scored = replace(run.predictions, scores=np.array(scores, dtype=np.float32))
    return measure(scored, n_train={name: len(ids) for name, ids in run.train.items()})


def of_splits(run: Run, names: Sequence[str]) -> dict[str, Any]:
    """Return the metrics of a run on some of its splits."""
    predictions = run.predictions
    rows = np.isin(predictions.split, list(names))
    arrays = {name: getattr(predictions, name)[rows] for name in ("id", "split", "true", "scores", "source")}
    return measure(replace(predictions, **arrays), n_train={name: len(run.train[name]) for name in names})


def study(pair: str, options: argparse.Namespace) -> dict[str, Any]:
    """Draw, probe, fine-tune and shuffle one pair."""
    motions = pair.split(",")
    work = options.work / pair.replace(",", "-")
    root, runs, cache = work / "clips", work / "runs", work / "cache"
    drawn = draw_pair(root, motions, options.clips)
    dataset = (str(root), "--format", "hmdb51", "--variant", "tiny")
    untrained = ("--weights", "untrained", "--size", SIZE, "--cache", str(cache), "--device", "cpu")
    splits = ("--protocol", "grouped", "--folds", "3", "--runs", str(runs), "--overwrite")
    call("extract", *dataset, *untrained)
    call("probe", *dataset, "--cache", str(cache), *splits, "--seeds", "1", "--run-name", "probe")
    training = [*shlex.split(TRAINING), "--epochs", str(options.epochs)]
    training += [part for motion in motions for part in ("--no-flip-class", motion)]
    split = ("--split", "grouped-1", "--run-name", "tuned", "--restart")
    seconds, busy = call("finetune", *dataset, *untrained, *training, *splits, *split)
    tuned, probe = read_run(runs / "tuned"), read_run(runs / "probe")
    metrics = {
        "untrained, linear probe": of_splits(probe, tuned.predictions.split_names),
        "fine-tuned": tuned.metrics,
        "fine-tuned, frames shuffled": shuffled(tuned, root),
    }
    return {
        "pair": motions,
        "clips": drawn,
        "tested": len(tuned.predictions.id),
        METRIC: {
            name: {key: each["summary"][METRIC][key] for key in ("mean", "ci95")} for name, each in metrics.items()
        },
        "finetune_s": round(seconds, 1),
        "finetune_cpu_s": round(busy, 1),
        "epochs": tuned.info["search"][0]["values"][-1],
        "cores": len(os.sched_getaffinity(0)),
    }


def main() -> None:
    """Study the pairs; print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), metavar="A,B")
    parser.add_argument(
        "--clips", type=int, default=8000, help="number of clips of all twelve motions, as in `data draw --count`"
    )
    parser.add_argument("--epochs", type=int, default=16, help="maximum number of epochs")
    parser.add_argument("--work", type=Path, default=Path("order-pairs"))
    parser.add_argument("--out", type=Path, default=Path("order-pairs.json"))
    options = parser.parse_args()
    studies = [study(pair, options) for pair in options.pairs]
    for pair in studies:
        click.echo(
            f"\n{' and '.join(pair['pair'])}: {pair['tested']} clips tested; fine-tuned in {pair['finetune_s']:.0f} s,"
            f" {pair['finetune_cpu_s']:.0f} s of a core"
        )
        for name, value in pair[METRIC].items():
            low, high = value["ci95"]
            click.echo(f"  {name:28} {100 * value['mean']:5.1f} %   95 % interval {100 * low:.1f} to {100 * high:.1f}")
    options.out.write_text(json.dumps(studies, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
