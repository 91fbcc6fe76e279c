"""Sweeps over resolutions, frame counts and heads: plan, embed and probe every setting.

Embedding resumes from the feature stores, probing from the runs on disk: a killed sweep continues where it was.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Unpack

import numpy as np

from actionvit.features.decoding import DecodePolicy, Frames
from actionvit.features.encoder import EncoderJob
from actionvit.features.store.store import FeatureStore
from actionvit.pipeline.datasets.dataset import Dataset
from actionvit.pipeline.extraction.extract import extract
from actionvit.pipeline.extraction.job import ExtractOptions
from actionvit.pipeline.extraction.summary import Outcome, Summary
from actionvit.pipeline.probing.features import FeatureTable, Quantity, shared_videos, table_of
from actionvit.pipeline.probing.probe import probe
from actionvit.pipeline.probing.results import ProbeResult, ensure_run, run_name
from actionvit.pipeline.probing.spec import ProbeSpec, features_of
from actionvit.pipeline.runs import Run

MIN_VIDEOS = 20
"""If the work is less than this many videos of the most expensive setting, no rate is measured: that takes as long."""

Tables = dict[Quantity, FeatureTable]

TOGETHER = 4
"""Settings that are embedded from one decoding of the videos: each holds its weights in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One setting of the encoder, and its remaining work."""

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
        """Multiply-adds for all views of one video, in 10⁹."""
        return self.job.plain_gmac


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """One row of the table."""

    planned: Planned
    spec: ProbeSpec
    run: Run
    reused: bool
    """Whether an existing run was reused."""


def plan_sweep(dataset: Dataset, jobs: Sequence[EncoderJob], *, cache: Path, policy: DecodePolicy) -> list[Planned]:
    """Return the cached and missing videos of each setting, the cheapest first; embeds nothing.

    Raises
    ------
    ActionVitError
        If a setting is impossible, such as a size that is not a multiple of the patch.
    """
    outcomes = extract(dataset, jobs, cache=cache, policy=policy, dry_run=True).outcomes
    settings = [_planned(job, outcome) for job, outcome in zip(jobs, outcomes, strict=True)]
    return sorted(settings, key=lambda setting: (setting.gmac, setting.name))


def _planned(job: EncoderJob, outcome: Outcome) -> Planned:
    return Planned(job=job, store=outcome.store, rows=outcome.rows, todo=outcome.pending, copies=outcome.reused)


Estimate = tuple[float, Planned, tuple[float, float]]
"""Forward passes in 10⁹ multiply-adds, the most expensive setting, and the shortest and longest time in seconds.

The times are NaN if the work is too small to be measured.
"""


def remaining_work(planned: Sequence[Planned], device: str) -> Estimate | None:
    """Estimate the forward passes of the missing videos; None if nothing is missing."""
    incomplete = [setting for setting in planned if setting.todo]
    if not incomplete:
        return None
    total = sum(setting.todo * setting.gmac for setting in incomplete)
    most = max(incomplete, key=lambda setting: setting.todo * setting.gmac)
    if total < MIN_VIDEOS * most.gmac:
        return total, most, (math.nan, math.nan)
    slow, fast = measured_rate(most, device)
    return total, most, (total / fast, total / slow)


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
    cache: Path,
    device: str,
    on_video: Callable[[str, int, int], None] = lambda names, done, total: None,
    **options: Unpack[ExtractOptions],
) -> list[Summary]:
    """Embed the missing videos, `TOGETHER` settings per pass, the cheapest first.

    Parameters
    ----------
    cache, device, **options
        As in `extract`.
    on_video : callable
        Called with (names of the settings, videos done, videos to do).
    """
    incomplete = [setting for setting in planned if setting.todo or setting.copies]
    summaries = []
    for start in range(0, len(incomplete), TOGETHER):
        group = incomplete[start : start + TOGETHER]
        summaries.append(
            extract(
                dataset,
                [setting.job for setting in group],
                cache=cache,
                device=device,
                on_video=partial(on_video, ", ".join(setting.name for setting in group)),
                **options,
            )
        )
    return summaries


def run_folder(runs: Path, setting: Planned, spec: ProbeSpec) -> Path:
    """Return the folder of the run of a setting and head."""
    return runs / run_name(setting.name, replace(spec, features=features_of(spec.head)))


def probe_all(
    dataset: Dataset,
    planned: Sequence[Planned],
    specs: Sequence[ProbeSpec],
    *,
    runs: Path,
    jobs: int = 2,
    command: Sequence[str] = (),
) -> Iterator[Probed]:
    """Yield every setting with every head, over the videos cached for all settings; existing runs are reused.

    Parameters
    ----------
    dataset : Dataset
    planned : sequence of Planned
        The settings, embedded.
    specs : sequence of ProbeSpec
        One per head and weighting.
    runs : Path
        Folder of the runs.
    jobs : int
        Threads, each working on one split.
    command : sequence of str
        The command line, for the runs' provenance.

    Raises
    ------
    ActionVitError
        If no video is cached for all settings, or a head does not have a setting.
    """
    stores = [FeatureStore.open(setting.store) for setting in planned]
    videos = shared_videos(dataset, stores)
    ids = [video.id for video in videos]
    for setting, store in zip(planned, stores, strict=True):
        tables: Tables = {}
        for spec in specs:
            spec = replace(spec, features=features_of(spec.head))

            def make(store: FeatureStore = store, spec: ProbeSpec = spec, tables: Tables = tables) -> ProbeResult:
                if spec.features not in tables:
                    tables[spec.features] = table_of(dataset, store, videos, spec.features)
                (result,) = probe(dataset, [tables[spec.features]], spec, jobs=jobs)
                result.info["command"] = list(command)
                return result

            run, reused = ensure_run(run_folder(runs, setting, spec), spec, dataset, store, ids, make)
            yield Probed(planned=setting, spec=spec, run=run, reused=reused)
