"""Which resolution, how many frames, which head: every setting embedded once, probed, and put into one table.

Embedding resumes from the feature stores, probing from the runs that are written: a sweep that was killed does what is
left. The best row is chosen by what cross-validation inside the training sides said of it, and its test figure is
then the figure of a choice that saw no test clip.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from actionvit.features.decoding import DecodePolicy, Frames
from actionvit.features.store.store import FeatureStore
from actionvit.pipeline.datasets.dataset import Dataset
from actionvit.pipeline.experiments.grids import Row, quantity_of
from actionvit.pipeline.experiments.tables import chosen_in_words
from actionvit.pipeline.extraction.extract import extract
from actionvit.pipeline.extraction.job import Job
from actionvit.pipeline.extraction.summary import Outcome, Summary
from actionvit.pipeline.probing.features import Quantity, shared_videos, table_of
from actionvit.pipeline.probing.probe import probe
from actionvit.pipeline.probing.results import run_name, same_answer
from actionvit.pipeline.probing.tasks import ProbeSpec
from actionvit.pipeline.runs import Run, read_run

UNJUDGED = "–"
"""What stands for a score inside the training sides where nothing can be judged there."""

TOGETHER = 4
"""Settings that are embedded from one decoding of the videos: each holds its weights in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One setting of the encoder, and what it still costs."""

    job: Job
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


def plan_sweep(dataset: Dataset, jobs: Sequence[Job], *, cache: Path, policy: DecodePolicy) -> list[Planned]:
    """Return what each setting has and lacks, the cheapest first; embeds nothing.

    Raises
    ------
    ActionVitError
        If a setting is impossible: a size of no whole patches, say.
    """
    outcomes = extract(dataset, jobs, cache=cache, policy=policy, dry_run=True).outcomes
    found = [_planned(job, outcome) for job, outcome in zip(jobs, outcomes, strict=True)]
    return sorted(found, key=lambda one: (one.gmac, one.name))


def _planned(job: Job, outcome: Outcome) -> Planned:
    return Planned(job=job, store=outcome.store, rows=outcome.rows, todo=outcome.pending, copies=outcome.reused)


def measured_rate(planned: Planned, device: str) -> float:
    """Return 10⁹ multiply-adds a second: noise through a setting's encoder for half a second, after one to warm up."""
    job = planned.job
    encoder = job.load(device)
    side, count = job.spec.size, job.spec.num_frames
    noise = np.random.default_rng(0).integers(0, 256, (count, side, side + side // 3, 3), dtype=np.uint8)
    frames = Frames(data=noise, index=np.arange(count), count=count, backend="noise")
    batch = [frames] * encoder.batch_videos
    encoder.submit(batch).result()
    times: list[float] = []
    while sum(times) < 0.5:
        start = time.perf_counter()
        encoder.submit(batch).result()
        times.append(time.perf_counter() - start)
    return planned.gmac * len(batch) / float(np.median(times))


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
        "GMAC": round(one.gmac, 2),
        "chosen": max(dict.fromkeys(chosen), key=chosen.count),
        # Where no training side has two sources, nothing can be judged inside it.
        "inside": {"mean": round(float(np.mean(inside)), 6), "std": std, "ci95": None} if inside else UNJUDGED,
        **{metric: summary[metric] for metric in ("top1", "mean_class_accuracy")},
    }


def best_of(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the row that cross-validation inside the training sides puts first; of equals the cheaper."""

    def rank(row: Mapping[str, Any]) -> tuple[float, float]:
        inside = row["inside"]
        return (-inside["mean"] if isinstance(inside, Mapping) else 0.0, row["GMAC"])

    return min(rows, key=rank)
