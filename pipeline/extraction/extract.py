"""Stage 1: decode, sample, embed, cache; each video is decoded once for all encoders."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from actionvit.errors import ActionVitError
from actionvit.features.decoding import (
    Decoded,
    DecodePolicy,
    DecodeRequest,
    available_cores,
    decode_stream,
    decoder_version,
)
from actionvit.features.encoder import EncoderJob, VideoEncoder
from actionvit.features.failures import Failure
from actionvit.features.fingerprint import fingerprint
from actionvit.features.store.catalog import Shard, in_shard, other_keys, sibling_stores, store_folder
from actionvit.features.store.plan import Plan, make_plan
from actionvit.features.store.speed import Speed, add_speed
from actionvit.features.store.store import KEY, FeatureStore
from actionvit.features.store.writer import Writer
from actionvit.pipeline.datasets.dataset import Dataset, Video
from actionvit.pipeline.extraction.encode_queue import EncodeQueue, StageSeconds
from actionvit.pipeline.extraction.job import feature_key
from actionvit.pipeline.extraction.summary import Outcome, Summary

MakeEncoder = Callable[[EncoderJob, str], VideoEncoder]


@dataclass(slots=True)
class _Target:
    """A job, its store, and the work left there."""

    job: EncoderJob
    store: FeatureStore
    other_keys: list[str]
    make_plan: Callable[[], Plan]
    plan: Plan
    writer: Writer | None = None
    embedded: int = 0
    reused: int = 0
    failed: set[str] = field(default_factory=set)

    @property
    def without_row(self) -> set[str]:
        """Videos without a row, from this run or an earlier one."""
        return {*self.plan.failed, *self.failed}


def extract(
    dataset: Dataset,
    jobs: Sequence[EncoderJob],
    *,
    cache: Path,
    policy: DecodePolicy = DecodePolicy(),
    device: str = "auto",
    workers: int | None = None,
    timeout: float = 60.0,
    shard: Shard | None = None,
    reuse_from: Sequence[Path] = (),
    wait: bool = False,
    flush_seconds: float = 5.0,
    flush_bytes: int = 1 << 26,
    verify: bool = False,
    retry_failed: bool = False,
    dry_run: bool = False,
    make_encoder: MakeEncoder | None = None,
    on_plan: Callable[[int, int], None] = lambda rows, size: None,
    on_video: Callable[[int, int], None] = lambda done, total: None,
) -> Summary:
    """Embed the videos of a dataset that have no cached row, for one or more encoders, decoding each video once.

    Parameters
    ----------
    dataset : Dataset
        Labels are ignored, so that new labels need no new extraction.
    jobs : sequence of EncoderJob
        One per variant; each has its own store below `cache/DATASET/`.
    policy, workers, timeout
        As for `decode_stream`.
    device : str
        `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
    shard : (i, n), optional
        Only the videos whose id falls into part i of n. Each part is a store of its own, to be merged.
    reuse_from : sequence of Path
        Other caches, from which rows of videos with the same content are copied.
    wait : bool
        Wait for another writer of a store instead of failing.
    flush_seconds, flush_bytes : float, int
        Maximum age in seconds and size in bytes of unpublished rows; a kill loses at most these.
    verify : bool
        Rehash every video instead of trusting size and modification time.
    retry_failed : bool
        Retry videos in the failure log even if neither file nor decoder changed.
    dry_run : bool
        Only count, and write nothing.
    make_encoder : callable, optional
        `(job, device) -> VideoEncoder`; by default loads the weights. Not called if there is nothing to embed.
    on_plan : callable
        Called with (rows to embed, their bytes) before anything starts.
    on_video : callable
        Called with (videos done, videos to do) after each video.

    Returns
    -------
    Summary
        Counts per variant and seconds per stage. Failures are counted, not raised; each store's failure log lists them.

    Raises
    ------
    ActionVitError
        If another writer holds a store (without `wait`), or the cache cannot be written or has too little room.
    """
    began = time.perf_counter()
    videos = [video for video in dataset.videos if shard is None or in_shard(video.id, shard)]
    count = available_cores() if workers is None else workers
    load = make_encoder or (lambda job, device: job.load(device))
    summary = Summary(
        outcomes=[], videos=len(videos), workers=count, stage_seconds=StageSeconds(), seconds=0.0, start=0.0
    )
    targets = _plan_targets(
        dataset, videos, jobs, cache=cache, policy=policy, shard=shard, reuse_from=reuse_from, verify=verify,
        retry_failed=retry_failed, on_plan=on_plan,
    )  # fmt: skip
    if not dry_run:
        _prepare(dataset, targets, cache)
    with ExitStack() as stack:
        if not dry_run:
            _take_over(targets, stack, wait=wait, flush_seconds=flush_seconds, flush_bytes=flush_bytes)
        # One thread for all forward passes; they release the GIL, so that gathering frames and writing rows overlap.
        thread = ThreadPoolExecutor(1)
        stack.callback(thread.shutdown, cancel_futures=True)
        queues = [
            (target, EncodeQueue(load(target.job, device), target.writer, frozenset(target.plan.pending), thread,
                                 summary.stage_seconds))
            for target in targets
            if target.plan.pending and target.writer
        ]  # fmt: skip
        summary.start = time.perf_counter() - began
        if queues:
            _run(videos, queues, summary, policy=policy, workers=count, timeout=timeout, on_video=on_video)
        for target, queue in queues:
            if target.embedded:
                speed = Speed(videos=target.embedded, seconds=queue.busy_seconds, device=device)
                add_speed(target.store.folder, speed)
    summary.failed = len(set().union(*(target.without_row for target in targets)))
    summary.outcomes = [_outcome(target, [video.id for video in videos], dry_run) for target in targets]
    summary.seconds = time.perf_counter() - began
    return summary


def apply_plans(
    dataset: Dataset,
    jobs: Sequence[EncoderJob],
    *,
    cache: Path,
    policy: DecodePolicy,
    verify: bool,
    retry_failed: bool,
    wait: bool,
    on_plan: Callable[[int, int], None],
) -> tuple[set[str], list[Outcome]]:
    """Run an extraction except for embedding: copy reusable rows, remove outdated ones. Settings are as for `extract`.

    Returns
    -------
    tuple of (set of str, list of Outcome)
        Ids of the videos to embed for at least one job, and the counts per job so far.
    """
    targets = _plan_targets(
        dataset, dataset.videos, jobs, cache=cache, policy=policy, verify=verify, retry_failed=retry_failed,
        on_plan=on_plan,
    )  # fmt: skip
    _prepare(dataset, targets, cache, copies=2)
    with ExitStack() as stack:
        _take_over([target for target in targets if target.plan.needs_apply], stack, wait=wait)
    ids = [video.id for video in dataset.videos]
    pending = set[str]().union(*(target.plan.pending for target in targets))
    return pending, [_outcome(target, ids, dry_run=False) for target in targets]


def _plan_targets(
    dataset: Dataset,
    videos: Sequence[Video],
    jobs: Sequence[EncoderJob],
    *,
    cache: Path,
    policy: DecodePolicy,
    verify: bool,
    retry_failed: bool,
    on_plan: Callable[[int, int], None],
    shard: Shard | None = None,
    reuse_from: Sequence[Path] = (),
) -> list[_Target]:
    """Open or create the jobs' stores, and plan each; write nothing."""
    files = [(video.id, video.path) for video in videos]

    def review(store: FeatureStore) -> Plan:
        return make_plan(
            store,
            files,
            segments=dataset.segments,
            verify=verify,
            retry_failed=retry_failed,
            decoder_version=decoder_version(),
            other_stores=[other for root in (cache, *reuse_from) for other in sibling_stores(root, store)],
        )

    keys = [feature_key(job, policy) for job in jobs]  # all before the first store: an error must leave no store
    targets = []
    for job, key in zip(jobs, keys, strict=True):
        folder = store_folder(cache, dataset.name, job.variant, key, shard)
        store = FeatureStore.open_or_new(folder, key=key, dataset=dataset.name, variant=job.variant)
        others = [] if (folder / KEY).exists() else other_keys(store)
        targets.append(_Target(job, store, others, partial(review, store), review(store)))
        _refuse_another(dataset, targets[-1])
    on_plan(sum(len(target.plan.pending) for target in targets), sum(map(_bytes_to_embed, targets)))
    return targets


def _prepare(dataset: Dataset, targets: Sequence[_Target], cache: Path, copies: int = 1) -> None:
    """Refuse an extraction that the disk has no room for; otherwise record the dataset in each store."""
    rows = sum(len(target.plan.pending) for target in targets)
    _check_room(cache, rows, copies * sum(map(_bytes_to_embed, targets)))
    for target in targets:
        target.store.write_info(_info(dataset, target.job, target.store.info))


def _info(dataset: Dataset, job: EncoderJob, recorded: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a store besides its key, which do not change the numbers."""
    return dataset.record | {"weights": job.source, "gmac": recorded.get("gmac") or job.gmac}


def _refuse_another(dataset: Dataset, target: _Target) -> None:
    """Refuse a dataset that has the name of another one, whose rows it would replace.

    It is another one if the recorded root still holds a file of a changed video as it was when it was embedded.
    """
    recorded, root = target.store.info.get("root"), dataset.root.resolve()
    if recorded in (None, str(root)):
        return
    store, plan = target.store, target.plan
    if len(store) == len(plan.unlisted) and all(source.store is not store for source in plan.reusable.values()):
        if len(store) and dataset.videos:
            raise ActionVitError(
                f"{root}: named `{dataset.name}` like {recorded}, whose embeddings are in {store.folder}, but no video "
                "of one is in the other; choose another name= for one of the two"
            )
        return
    others = [id for id in plan.changed if _is_as_embedded(store, id, Path(recorded) / id)]
    if others:
        raise ActionVitError(
            f"{root}: its name is `{dataset.name}`, and so is that of {recorded}, whose embeddings are in"
            f" {target.store.folder}; ids of other videos there: {len(others)} ({others[0]!r} is the first); choose"
            " another name= for one of the two"
        )


def _is_as_embedded(store: FeatureStore, id: str, path: Path) -> bool:
    """Return whether a file has the size and modification time that its row recorded."""
    row = store.index.find(id)
    try:
        return row is not None and fingerprint(path) == store.index.record(row).fingerprint
    except OSError:
        return False


def _bytes_to_embed(target: _Target) -> int:
    """Return the size on disk of the rows to embed, without their records."""
    arrays = target.job.output_spec().values()
    return len(target.plan.pending) * sum(math.prod(shape) * np.dtype(kind).itemsize for shape, kind in arrays)


def _check_room(cache: Path, rows: int, size: int) -> None:
    """Raise before hours of work if the disk has too little room."""
    existing = next(folder for folder in (cache.absolute(), *cache.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if size > free:
        raise ActionVitError(
            f"{cache}: embeddings of {rows} videos take {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free;"
            " leave out save_tokens_after=, take a shard=, or choose another cache="
        )


def _take_over(targets: Sequence[_Target], stack: ExitStack, *, wait: bool, **flush: Any) -> None:
    """Become the writer of each store that has work left; plan again if another writer has just finished.

    Locks are taken in the order of folders, not of variants, so that two processes cannot deadlock.
    """
    active = [target for target in targets if target.plan.pending or target.plan.needs_apply]
    for target in sorted(active, key=lambda target: target.store.folder):
        before = target.store.digest()
        target.writer = stack.enter_context(Writer(target.store, wait=wait, **flush))
        if target.store.digest() != before:
            target.plan = target.make_plan()
        if target.plan.needs_apply:
            not_copied = target.writer.apply(target.plan)
            target.reused = len(target.plan.reusable) - len(not_copied)
            target.plan = replace(target.plan, missing=(*target.plan.missing, *not_copied))


def _run(
    videos: Sequence[Video],
    queues: Sequence[tuple[_Target, EncodeQueue]],
    summary: Summary,
    *,
    policy: DecodePolicy,
    workers: int,
    timeout: float,
    on_video: Callable[[int, int], None],
) -> None:
    """Decode each video once, for every queue that needs it.

    Videos whose decoding ran out of memory are decoded again at the end, by a single worker.
    """
    pending = [video for video in videos if any(video.id in queue.todo for _, queue in queues)]
    # Segments of one file in order of their starts: their ids sort as text.
    pending.sort(key=lambda video: (str(video.path), video.segment.start if video.segment else 0.0))
    out_of_memory: list[Video] = []
    done = 0
    for count, batch in ((workers, pending), (1, out_of_memory)):
        requests = (
            DecodeRequest(
                video.id,
                video.path,
                tuple(target.job.spec for target, queue in queues if video.id in queue.todo),
                video.segment,
            )
            for video in batch
        )
        by_id = {video.id: video for video in batch}
        with closing(decode_stream(requests, policy=policy, workers=count, timeout=timeout)) as stream:
            for item in stream if batch else ():
                if batch is pending and count > 1 and isinstance(item, Failure) and item.out_of_memory:
                    out_of_memory.append(by_id[item.id])
                    continue
                _take(item, queues, summary)
                done += 1
                on_video(done, len(pending))
    for _, queue in queues:
        queue.finish()


def _take(item: Decoded | Failure, queues: Sequence[tuple[_Target, EncodeQueue]], summary: Summary) -> None:
    """Put a decoded video into the queues that need it, or record its failure."""
    for target, queue in queues:
        if item.id not in queue.todo:
            continue
        if isinstance(item, Decoded):
            queue.put(item)
            target.embedded += 1
        else:
            target.failed.add(item.id)
            assert target.writer is not None
            target.writer.add_failure(item)
    if isinstance(item, Decoded):
        summary.decoded += 1
        summary.stage_seconds.decode += item.seconds


def _outcome(target: _Target, ids: Sequence[str], dry_run: bool) -> Outcome:
    """Count the rows that the store has for these videos now."""
    cached = set(target.store.ids)
    present = [id for id in ids if id in cached]
    return Outcome(
        variant=target.job.variant,
        store=target.store.folder,
        rows=len(present),
        cached=len(present) - target.embedded - target.reused,
        embedded=target.embedded,
        reused=len(target.plan.reusable) if dry_run else target.reused,
        failed=len(target.without_row),
        pending=len(target.plan.pending) if dry_run else 0,
        flagged=target.store.count_flagged(present),
        gmac=target.store.info.get("gmac") or target.job.gmac,
        other_keys=target.other_keys,
    )
