"""The driver of an extraction on an engine: attempts, retries, the merge, and the final local extraction."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack

from actionvit.errors import ActionVitError
from actionvit.features.atomic import atomic_write, make_folder
from actionvit.features.decoding import DecodePolicy
from actionvit.features.encoder import EncoderJob
from actionvit.features.store.catalog import shard_number, store_folder
from actionvit.features.store.locks import locked
from actionvit.features.store.manifest import read_manifest
from actionvit.features.store.merge import merge_stores
from actionvit.features.store.store import KEY, FeatureStore
from actionvit.pipeline.datasets.dataset import Dataset, Video
from actionvit.pipeline.extraction.engines import Attempt, Engine
from actionvit.pipeline.extraction.extract import MakeEncoder, apply_plans, extract
from actionvit.pipeline.extraction.job import ExtractOptions, feature_key
from actionvit.pipeline.extraction.summary import Summary

ENGINE_FOLDER = ".engine"
MAX_ATTEMPTS = 3
POLL_SECONDS = 1.0
POLL_SHARE = 0.05
"""Maximum fraction of the driver's time that counting rows may take."""
BUSY = "runs the same extraction on an engine; wait until it has ended"
logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Run:
    """The attempts of one extraction, in a folder named by its dataset and keys, where the next driver finds them."""

    folder: Path
    stores: list[Path]
    """Folder of each job's store in the cache."""
    template: Attempt
    """An attempt without videos, shard and cache."""
    videos: dict[int, list[Video]] = field(default_factory=dict)
    """Videos to embed, by shard."""
    lost: list[str] = field(default_factory=list)

    def new_attempt(self, number: int, shards: int) -> Attempt:
        """Make the folder of the next attempt at a shard, and return the attempt."""
        earlier = sorted(self.folder.glob(f"{number}-of-{shards}.try-*"))
        cache = self.folder / f"{number}-of-{shards}.try-{len(earlier) + 1}"
        make_folder(cache)
        videos = self.videos[number]
        visible = next((video.path for video in videos if video.path.exists()), None)
        return replace(
            self.template,
            dataset=replace(self.template.dataset, videos=tuple(videos)),
            shard=(number, shards),
            cache=cache,
            earlier=tuple(earlier),
            visible={"cache": self.folder / "driver.json"} | ({"video": visible} if visible else {}),
        )

    def merge(self, *, drop_unreadable: bool = False) -> None:
        """Merge all attempts into the cache; optionally drop attempts that cannot be merged, which are then repeated.

        An attempt cannot be merged if its files are damaged, or hold another video under an id than the cache.
        """
        for target in self.stores:
            pattern = f"*.try-*/{target.parent.name}/{target.name}.shard-*/{KEY}"
            folders = [path.parent for path in sorted(self.folder.glob(pattern))]
            for group in [[folder] for folder in folders] if drop_unreadable else [folders] if folders else []:
                try:
                    merge_stores([FeatureStore.open(folder) for folder in group], target)
                except ActionVitError as error:
                    if not drop_unreadable:
                        raise
                    logger.warning("an earlier attempt is repeated: %s", error)
                    shutil.rmtree(group[0])

    def remove(self) -> None:
        """Remove all attempts. The rename comes first, so that a machine cut off from the driver cannot add files."""
        removed = self.folder.with_suffix(".removed")
        shutil.rmtree(removed, ignore_errors=True)  # of a driver that was killed here
        self.folder.rename(removed)
        shutil.rmtree(removed)
        with contextlib.suppress(OSError):  # another extraction may be running there
            self.folder.parent.rmdir()


def extract_on(
    engine: Engine,
    dataset: Dataset,
    jobs: Sequence[EncoderJob],
    *,
    cache: Path,
    shards: int,
    policy: DecodePolicy = DecodePolicy(),
    device: str = "cpu",
    local_device: str | None = None,
    verify: bool = False,
    retry_failed: bool = False,
    wait: bool = False,
    make_encoder: MakeEncoder | None = None,
    on_plan: Callable[[int, int], None] = lambda rows, size: None,
    on_video: Callable[[int, int], None] = lambda done, total: None,
    **options: Unpack[ExtractOptions],
) -> Summary:
    """Extract like `extract`, with the shards on an engine. Parameters that are not listed are as for `extract`.

    Parameters
    ----------
    engine : Engine
        Runs the attempts; entered and left here.
    shards : int
        Number of shards of the videos without a row. A lost machine costs the shards it was running, so take several
        per worker.
    device : str
        Device of each attempt; `LocalEngine` has its own.
    local_device : str, optional
        Device of the final local extraction, by default `device`.
    on_video : callable
        Called with (rows published so far, rows to make) about once per second.
    **options
        As in `extract`.

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
    began = time.perf_counter()
    keys = [feature_key(job, policy) for job in jobs]
    stores = [store_folder(cache, dataset.name, job.variant, key) for job, key in zip(jobs, keys, strict=True)]
    settings = json.dumps([dataset.name, [store.name for store in stores]]).encode()
    folder = cache / ENGINE_FOLDER / hashlib.sha256(settings).hexdigest()[:10]
    common: dict[str, Any] = {"policy": policy, "make_encoder": make_encoder}
    make_folder(folder)
    with locked(folder, wait=wait, busy=BUSY):
        atomic_write(folder / "driver.json", settings)
        bare = replace(dataset, videos=(), official=(), notes=(), merged_sources={})
        run = _Run(folder, stores, Attempt(dataset=bare, jobs=tuple(jobs), device=device, options=options, **common))
        run.merge(drop_unreadable=True)
        pending, before = apply_plans(
            dataset, jobs, cache=cache, policy=policy, verify=verify, retry_failed=retry_failed, wait=wait,
            on_plan=on_plan,
        )  # fmt: skip
        for video in dataset.videos:
            if video.id in pending:
                run.videos.setdefault(shard_number(video.id, shards) + 1, []).append(video)
        if pending:
            _run_all(engine, run, shards, lambda rows: on_video(rows, len(pending) * len(jobs)))
            run.merge()
        summary = extract(dataset, jobs, cache=cache, device=local_device or device, wait=wait, **common, **options)
        run.remove()  # with the lock
    for outcome, earlier in zip(summary.outcomes, before, strict=True):
        outcome.cached, outcome.reused = earlier.cached, earlier.reused
        outcome.embedded = outcome.rows - outcome.cached - outcome.reused
        outcome.other_keys = earlier.other_keys
    summary.lost = run.lost
    summary.seconds = time.perf_counter() - began
    return summary


def _run_all(engine: Engine, run: _Run, shards: int, on_rows: Callable[[int], None]) -> None:
    """Run every shard to its end; a lost attempt is followed by another one."""
    waiting = sorted(run.videos)
    losses = dict.fromkeys(waiting, 0)
    running: dict[Any, Attempt] = {}
    finished_rows, pause, counted = 0, POLL_SECONDS, 0.0
    with engine:
        while waiting or running:
            while waiting and len(running) < engine.slots:
                attempt = run.new_attempt(waiting.pop(0), shards)
                running[engine.start(attempt)] = attempt
            for handle, result in engine.finished(list(running), POLL_SECONDS):
                attempt = running.pop(handle)
                number = attempt.shard[0]
                host = result.host or attempt.host
                if result.error:
                    raise ActionVitError(f"on {host}: {result.error}")
                if not result.lost:
                    finished_rows += _rows(attempt)
                    continue
                losses[number] += 1
                run.lost.append(f"shard {number} of {shards} on {host}: {result.lost}")
                logger.warning("lost %s", run.lost[-1])
                if losses[number] == MAX_ATTEMPTS:
                    raise ActionVitError(
                        f"lost {MAX_ATTEMPTS} times: {run.lost[-1]}; finished rows are kept, run again"
                    )
                waiting.append(number)
            if (now := time.perf_counter()) - counted >= pause:
                on_rows(finished_rows + sum(map(_rows, running.values())))
                counted = time.perf_counter()
                pause = max(POLL_SECONDS, (counted - now) / POLL_SHARE)


def _rows(attempt: Attempt) -> int:
    """Return how many rows an attempt has published."""
    manifests = [read_manifest(path.parent) for path in attempt.cache.glob(f"*/*/{KEY}")]
    return sum(sum(manifest.parts.values()) for manifest in manifests if manifest)
