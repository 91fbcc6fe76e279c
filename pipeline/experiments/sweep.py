"""Sweeps over resolutions, frame counts and heads: every setting embedded once, probed, and put into one table.

Embedding resumes from the feature stores, probing from the runs that are written: a sweep that was killed does what is
left. No row of the table is called the best with its test figure: the test clips of one fold train the heads of the
others, so a setting that is chosen by its mean over folds has seen them. Instead a setting is chosen split by split,
inside each training set, and the figure of that procedure is reported (nested selection; Cawley & Talbot, JMLR 2010).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from actionvit.features.decoding import DecodePolicy, Frames
from actionvit.features.encoder import EncoderJob
from actionvit.features.store.store import FeatureStore
from actionvit.pipeline.datasets.dataset import Dataset
from actionvit.pipeline.experiments.grids import Row, quantity_of
from actionvit.pipeline.experiments.tables import chosen_in_words
from actionvit.pipeline.extraction.extract import extract
from actionvit.pipeline.extraction.summary import Outcome, Summary
from actionvit.pipeline.probing.features import Quantity, shared_videos, table_of
from actionvit.pipeline.probing.probe import probe
from actionvit.pipeline.probing.results import run_name, same_answer
from actionvit.pipeline.probing.tasks import ProbeSpec
from actionvit.pipeline.runs import Predictions, Run, measure, read_run, training_sizes

ARRAYS = tuple(field for field in fields(Predictions) if field.name != "class_names")

UNJUDGED = "–"
"""Entry of a row whose setting cannot be scored inside the training sets."""

TOGETHER = 4
"""Settings that are embedded from one decoding of the videos: each holds its weights in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One setting of the encoder, and what it still costs."""

    job: EncoderJob
    store: Path
    rows: int
    """Videos that are cached."""
    todo: int
    """Videos still to embed."""
    copies: int
    """Videos whose rows another store has."""

    @property
    def name(self) -> str:
        """Return `base-8x224`."""
        return f"{self.job.variant}-{self.job.spec.num_frames}x{self.job.spec.size}"

    @property
    def gmac(self) -> float:
        """10⁹ multiply-adds a video, all its views."""
        return self.job.plain_gmac


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """One row of the table."""

    planned: Planned
    spec: ProbeSpec
    run: Run
    reused: bool
    """Whether the run was there already."""


def plan_sweep(dataset: Dataset, jobs: Sequence[EncoderJob], *, cache: Path, policy: DecodePolicy) -> list[Planned]:
    """Return what each setting has and lacks, the cheapest first; embeds nothing.

    Raises
    ------
    ActionVitError
        If a setting is impossible: a size of no whole patches, say.
    """
    outcomes = extract(dataset, jobs, cache=cache, policy=policy, dry_run=True).outcomes
    found = [_planned(job, outcome) for job, outcome in zip(jobs, outcomes, strict=True)]
    return sorted(found, key=lambda one: (one.gmac, one.name))


def _planned(job: EncoderJob, outcome: Outcome) -> Planned:
    return Planned(job=job, store=outcome.store, rows=outcome.rows, todo=outcome.pending, copies=outcome.reused)


def measured_rate(planned: Planned, device: str) -> tuple[float, float]:
    """Return the lowest and the highest rate of a setting's encoder on noise, in 10⁹ multiply-adds per second.

    Two batches warm up, then at least three are timed, for at least two seconds.
    """
    job = planned.job
    encoder = job.load(device)
    side, count = job.spec.size, job.spec.num_frames
    noise = np.random.default_rng(0).integers(0, 256, (count, side, side + side // 3, 3), dtype=np.uint8)
    frames = Frames(data=noise, index=np.arange(count), count=count, backend="noise")
    batch = [frames] * encoder.batch_videos
    times: list[float] = []
    for number in range(1000):
        start = time.perf_counter()
        encoder.submit(batch).result()
        times.append(time.perf_counter() - start)
        if number >= 4 and sum(times[2:]) > 2:
            break
    work = planned.gmac * len(batch)
    return work / max(times[2:]), work / min(times[2:])


def embed(
    dataset: Dataset,
    planned: Sequence[Planned],
    *,
    on_video: Callable[[Sequence[Planned], int, int], None] = lambda group, done, total: None,
    **options: Any,
) -> list[Summary]:
    """Embed what is lacking, `TOGETHER` settings a pass, the cheapest first; `options` are those of `extract`."""
    lacking = [one for one in planned if one.todo or one.copies]
    summaries = []
    for start in range(0, len(lacking), TOGETHER):
        group = lacking[start : start + TOGETHER]
        summaries.append(
            extract(
                dataset,
                [one.job for one in group],
                on_video=lambda done, total, group=group: on_video(group, done, total),  # type: ignore[misc]
                **options,
            )
        )
    return summaries


def probe_all(
    dataset: Dataset,
    planned: Sequence[Planned],
    specs: Sequence[ProbeSpec],
    *,
    runs: Path,
    jobs: int = 2,
    command: Sequence[str] = (),
) -> Iterator[Probed]:
    """Yield every setting with every head, over the videos that all settings have; a run that is there is read.

    Raises
    ------
    ActionVitError
        If no video is cached under all settings, or a head lacks a setting it is asked for.
    """
    stores = [FeatureStore.open(one.store) for one in planned]
    videos = shared_videos(dataset, stores)
    ids = [video.id for video in videos]
    for one, store in zip(planned, stores, strict=True):
        tables: dict[Quantity, Any] = {}
        for spec in specs:
            spec = replace(spec, features=quantity_of(spec.head))
            folder = runs / run_name(one.name, spec)
            if same_answer(folder, spec, dataset, [store], ids):
                yield Probed(planned=one, spec=spec, run=read_run(folder), reused=True)
                continue
            if spec.features not in tables:
                tables[spec.features] = table_of(dataset, store, videos, spec.features)
            result = probe(dataset, [tables[spec.features]], spec, jobs=jobs)[0]
            result.info["command"] = list(command)
            run = result.write(runs, name=folder.name, overwrite=True)
            yield Probed(planned=one, spec=spec, run=run, reused=False)


def row_of(probed: Probed) -> Row:
    """Return the table's row: the setting, its cost, what the search said of it, and the test figures."""
    one, search = probed.planned, probed.run.info["search"]
    summary = probed.run.metrics["summary"]
    chosen = [chosen_in_words(entry) for entry in search]
    inside = [max(entry["scores"]) for entry in search if entry["scored"]]
    std = round(float(np.std(inside, ddof=1)), 6) if len(inside) > 1 else None
    return {
        "variant": one.job.variant,
        "frames": one.job.spec.num_frames,
        "size": one.job.spec.size,
        "head": probed.spec.head,
        "weighting": probed.spec.class_weight,
        "GMAC": round(one.gmac, 2) or float(f"{one.gmac:.2g}"),
        "chosen": max(dict.fromkeys(chosen), key=chosen.count),
        # Where no training side has two sources, nothing can be judged inside it.
        "inside": {"mean": round(float(np.mean(inside)), 6), "std": std, "ci95": None} if inside else UNJUDGED,
        **{metric: summary[metric] for metric in ("top1", "mean_class_accuracy")},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class NestedChoice:
    """The procedure "choose a setting inside the training set, then train it", scored on every split's test set."""

    chosen: Mapping[str, int]
    """Index of the chosen setting by split name."""
    summary: Mapping[str, Any]
    """As of `metrics.json`."""


def choose_per_split(runs: Sequence[Run], costs: Sequence[float]) -> NestedChoice | None:
    """Choose a setting in each split by its score inside the training set; of equals the cheaper.

    Parameters
    ----------
    runs : sequence of Run
        One per setting, over the same splits.
    costs : sequence of float
        Multiply-adds of each.

    Returns
    -------
    NestedChoice, or None if nothing can be scored inside any training set.
    """
    inside = [{entry["split"]: max(entry["scores"]) for entry in run.info["search"] if entry["scored"]} for run in runs]
    if not any(inside):
        return None
    names = runs[0].predictions.split_names
    chosen = {name: min(range(len(runs)), key=lambda i: (-inside[i].get(name, -np.inf), costs[i], i)) for name in names}
    parts = []
    for name, number in chosen.items():
        predictions = runs[number].predictions
        parts.append({field.name: getattr(predictions, field.name)[predictions.split == name] for field in ARRAYS})
    joined = {field.name: np.concatenate([part[field.name] for part in parts]) for field in ARRAYS}
    predictions = Predictions(**joined, class_names=runs[0].predictions.class_names)
    return NestedChoice(chosen=chosen, summary=measure(predictions, n_train=training_sizes(*runs))["summary"])


def nested_line(choice: NestedChoice | None, rows: Sequence[Row]) -> str:
    """Return the finding of a sweep: the figure of choosing inside the training sets, and what was chosen."""
    if choice is None:
        return "Inside the training sets nothing can be scored: each has one source, or classes of one source."
    counts = Counter(choice.chosen.values())
    named = "; ".join(
        f"{row['variant']} {row['frames']}×{row['size']}, {row['head']}, {row['weighting']} ({count}×)"
        for row, count in ((rows[number], count) for number, count in counts.most_common())
    )
    top1 = choice.summary["top1"]
    low, high = top1["ci95"]
    return (
        f"Chosen inside each training set: {named}. Top-1 of this procedure: {100 * top1['mean']:.1f} %"
        f" [{100 * low:.1f}, {100 * high:.1f}]. The figure of a single row is that of a setting fixed beforehand."
    )
