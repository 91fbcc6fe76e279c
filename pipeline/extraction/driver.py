"""The driver of an extraction on an engine: attempts, retries, the merge, and the final local extraction."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from actionvit.errors import ActionVitError
from actionvit.features.atomic import atomic_write, make_folder
from actionvit.features.decoding import DecodePolicy
from actionvit.features.encoder import EncoderJob
from actionvit.features.store.catalog import in_shard, shard_number, store_folder
from actionvit.features.store.locks import locked
from actionvit.features.store.manifest import read_manifest
from actionvit.features.store.merge import merge_stores
from actionvit.features.store.store import KEY, FeatureStore
from actionvit.pipeline.datasets.dataset import Dataset
from actionvit.pipeline.extraction.engines import Attempt, Engine, Result
from actionvit.pipeline.extraction.extract import MakeEncoder, extract
from actionvit.pipeline.extraction.job import feature_key
from actionvit.pipeline.extraction.summary import Summary

ENGINE_FOLDER = ".engine"
MAX_ATTEMPTS = 3
POLL_SECONDS = 1.0
BUSY = "runs the same extraction on an engine; wait until it has ended"
logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Run:
    """The attempts of one extraction, in a folder whose name depends on its settings: a restart finds them again."""

    folder: Path
    dataset: Dataset
    jobs: tuple[EncoderJob, ...]
    shards: int
    policy: DecodePolicy
    device: str
    make_encoder: MakeEncoder | None
    options: dict[str, Any]
    lost: list[str] = field(default_factory=list)

    def attempt(self, number: int) -> Attempt:
        """Return the next attempt at shard `number`."""
        shard = (number, self.shards)
        earlier = self.attempts(number)
        videos = tuple(video for video in self.dataset.videos if in_shard(video.id, shard))
        return Attempt(
            dataset=replace(self.dataset, videos=videos),
            jobs=self.jobs,
            shard=shard,
            cache=self.folder / f"{number}-of-{self.shards}.try-{len(earlier) + 1}",
            earlier=tuple(earlier),
            marker=self.folder / "driver.json",
            policy=self.policy,
            device=self.device,
            options=self.options,
            make_encoder=self.make_encoder,
        )

    def attempts(self, number: int) -> list[Path]:
        """Return the caches of all attempts at a shard so far, in order."""
        folders = self.folder.glob(f"{number}-of-{self.shards}.try-*")
        return sorted(folders, key=lambda folder: int(folder.name.rpartition("-")[2]))

    def rows(self) -> int:
        """Return how many rows all attempts have published."""
        manifests = [read_manifest(path.parent) for path in self.folder.glob(f"*/*/*/{KEY}")]
        return sum(sum(manifest.parts.values()) for manifest in manifests if manifest)


def extract_on(
    engine: Engine,
    dataset: Dataset,
    jobs: Sequence[EncoderJob],
    *,
    cache: Path,
    shards: int,
    policy: DecodePolicy = DecodePolicy(),
    device: str = "cpu",
    make_encoder: MakeEncoder | None = None,
    on_video: Callable[[int, int], None] = lambda done, total: None,
    **options: Any,
) -> Summary:
    """Extract like `extract`, the shards on an engine.

    Parameters
    ----------
    engine : Engine
        Runs the attempts; entered and left here.
    shards : int
        Number of shards; a lost machine costs the shards it was running, so take several per worker.
    device : str
        Device of each attempt; `LocalEngine` has its own.
    on_video : callable
        Called with (rows published so far, rows to make) about once per second.
    **options
        `workers`, `timeout`, `flush_seconds`, `flush_bytes`, `verify`, `retry_failed`, as in `extract`.

    Returns
    -------
    Summary
        Of the whole extraction; `lost` names attempts that ended without a result.

    Raises
    ------
    ActionVitError
        If an attempt met a user's error, with the host, or a shard was lost `MAX_ATTEMPTS` times. Finished rows stay
        in `CACHE/.engine/`, and the next call reuses them.
    """
    keys = [feature_key(job, policy) for job in jobs]
    folders = [store_folder(cache, dataset.name, job.variant, key) for job, key in zip(jobs, keys, strict=True)]
    settings = json.dumps([dataset.name, shards, [key.digest for key in keys]])
    folder = cache / ENGINE_FOLDER / hashlib.sha256(settings.encode()).hexdigest()[:10]
    make_folder(folder)
    with locked(folder, busy=BUSY):
        atomic_write(folder / "driver.json", settings.encode())
        run = _Run(folder, dataset, tuple(jobs), shards, policy, device, make_encoder, options)
        _run_all(engine, run, lambda rows: on_video(rows, len(dataset.videos) * len(jobs)))
        for target in folders:
            _merge(run, target)
        summary = extract(
            dataset, jobs, cache=cache, policy=policy, device=device, make_encoder=make_encoder, **options
        )
        shutil.rmtree(folder)  # with the lock
    with contextlib.suppress(OSError):  # another extraction may be running there
        folder.parent.rmdir()
    summary.lost = run.lost
    return summary


def _run_all(engine: Engine, run: _Run, on_rows: Callable[[int], None]) -> None:
    """Run every shard to its end; a lost attempt is followed by another one."""
    waiting = sorted({shard_number(video.id, run.shards) + 1 for video in run.dataset.videos})
    losses = dict.fromkeys(waiting, 0)
    running: dict[Any, Attempt] = {}
    with engine:
        while waiting or running:
            while waiting and len(running) < engine.slots:
                attempt = run.attempt(waiting.pop(0))
                make_folder(attempt.cache)
                running[engine.start(attempt)] = attempt
            for handle, result in engine.finished(list(running), POLL_SECONDS):
                number, shards = running.pop(handle).shard
                _check(result)
                if result.lost:
                    losses[number] += 1
                    run.lost.append(f"shard {number} of {shards} on {result.host}: {result.lost}")
                    logger.warning("lost %s", run.lost[-1])
                    if losses[number] == MAX_ATTEMPTS:
                        raise ActionVitError(
                            f"lost {MAX_ATTEMPTS} times: {run.lost[-1]}; finished rows are kept, run again"
                        )
                    waiting.append(number)
            on_rows(run.rows())


def _check(result: Result) -> None:
    if result.error:
        raise ActionVitError(f"on {result.host}: {result.error}")


def _merge(run: _Run, target: Path) -> None:
    """Merge all attempts' rows of one store; later attempts hold the rows of earlier ones, too."""
    stores = []
    for number in range(1, run.shards + 1):
        for attempt in reversed(run.attempts(number)):
            shard = attempt / target.parent.name / f"{target.name}.shard-{number}-of-{run.shards}"
            if (shard / KEY).exists():
                stores.append(FeatureStore.open(shard))
    if stores:
        merge_stores(stores, target)
