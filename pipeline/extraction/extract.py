"""Stage 1: decode, sample, embed, cache; each video decoded once for all variants, each row published when whole."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
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
from actionvit.features.store.catalog import in_shard, other_keys, sibling_stores, store_folder
from actionvit.features.store.plan import Plan, make_plan
from actionvit.features.store.speed import Speed, add_speed
from actionvit.features.store.store import KEY, FeatureStore
from actionvit.features.store.writer import Writer
from actionvit.pipeline.datasets.dataset import Dataset, Video
from actionvit.pipeline.extraction.encode_queue import EncodeQueue, StageSeconds
from actionvit.pipeline.extraction.job import feature_key
from actionvit.pipeline.extraction.summary import Outcome, Summary

Shard = tuple[int, int]
MakeEncoder = Callable[[EncoderJob, str], VideoEncoder]


@dataclass(slots=True)
class _Target:
    """A job, its store, and what is left to do there."""

    job: EncoderJob
    store: FeatureStore
    other_keys: list[str]
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
    on_plan: Callable[[int, int], None] = lambda videos, size: None,
    on_video: Callable[[int, int], None] = lambda done, total: None,
) -> Summary:
    """Embed what the cache lacks of a dataset, for one or more variants, decoding each video once.

    Parameters
    ----------
    dataset : Dataset
        Its labels are not looked at: relabelling re-extracts nothing.
    jobs : sequence of EncoderJob
        One a variant; each has its own store below `cache/DATASET/`.
    shard : (i, n), optional
        Only the videos whose id falls to part i of n; each part is a store of its own, to be merged.
    reuse_from : sequence of Path
        Other caches, from which rows of videos with the same content are copied.
    wait : bool
        Wait for another writer of a store instead of failing.
    flush_seconds, flush_bytes : float, int
        Embeddings are published this long after the last ones, or when so many wait: what a kill can cost.
    verify : bool
        Rehash every video instead of trusting size and modification time.
    retry_failed : bool
        Try again what the ledger names though neither file nor decoder changed.
    dry_run : bool
        Only count, and write nothing.
    make_encoder : callable, optional
        `(job, device) -> VideoEncoder`; by default loads the weights. Not called where there is nothing to embed.
    on_plan : callable
        Told (rows to embed, bytes they will take) before anything starts.
    on_video : callable
        Told (videos done, videos to do) after each.

    Returns
    -------
    Summary
        Counts a variant, seconds a phase. Failures are counted, not raised: each store's ledger names them.

    Raises
    ------
    ActionVitError
        If a store is held by another writer (without `wait`), cannot be written, or would not fit on its disk.
    """
    began = time.perf_counter()
    videos = [video for video in dataset.videos if shard is None or in_shard(video.id, shard)]
    files = [(video.id, video.path) for video in videos]
    count = available_cores() if workers is None else workers
    load = make_encoder or (lambda job, device: job.load(device))
    summary = Summary(
        outcomes=[], videos=len(videos), workers=count, stage_seconds=StageSeconds(), seconds=0.0, start=0.0
    )

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

    keys = [feature_key(job, policy) for job in jobs]  # all of them first: a mistake in one must write nothing
    targets = []
    for job, key in zip(jobs, keys, strict=True):
        folder = store_folder(cache, dataset.name, job.variant, key, shard)
        store = FeatureStore.open_or_new(folder, key=key, dataset=dataset.name, variant=job.variant)
        targets.append(_Target(job, store, [] if (folder / KEY).exists() else other_keys(store), review(store)))
        _refuse_another(dataset, targets[-1])
    rows, size = sum(len(target.plan.pending) for target in targets), sum(map(_bytes_to_come, targets))
    on_plan(rows, size)
    if not dry_run:
        _check_room(cache, rows, size)
        for target in targets:
            target.store.write_info(_info(dataset, target.job, target.store.info))
    with ExitStack() as stack:
        active = [] if dry_run else [target for target in targets if target.plan.pending or target.plan.needs_apply]
        # One order of locks for all processes, whatever order the variants were given in: no deadlock.
        for target in sorted(active, key=lambda target: target.store.folder):
            _take_over(target, stack, review, wait=wait, flush_seconds=flush_seconds, flush_bytes=flush_bytes)
        # One thread for all forwards: it releases the GIL, so frames are gathered and rows written beside it.
        thread = ThreadPoolExecutor(1)
        stack.callback(thread.shutdown, cancel_futures=True)
        queues = [
            (
                target,
                EncodeQueue(
                    load(target.job, device),
                    target.writer,
                    frozenset(target.plan.pending),
                    thread,
                    summary.stage_seconds,
                ),
            )
            for target in active
            if target.plan.pending and target.writer
        ]
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


def _info(dataset: Dataset, job: EncoderJob, recorded: dict[str, Any]) -> dict[str, Any]:
    """Return what a store records that changes no number."""
    return dataset.record | {"weights": job.source, "gmac": recorded.get("gmac") or job.gmac}


def _refuse_another(dataset: Dataset, target: _Target) -> None:
    """Refuse a dataset that has the name of another: its rows would take the place of the other's, id by id.

    There is another where a changed video's file lies under the recorded root just as it was embedded.
    """
    recorded, here = target.store.info.get("root"), dataset.root.resolve()
    if recorded in (None, str(here)):
        return
    store, plan = target.store, target.plan
    if len(store) == len(plan.unlisted) and all(source.store is not store for source in plan.reusable.values()):
        if len(store) and dataset.videos:
            raise ActionVitError(
                f"{here}: named `{dataset.name}` like {recorded}, whose embeddings are in {store.folder}, but no video "
                "of one is in the other; give --dataset-name, another name for one of the two"
            )
        return
    others = [id for id in plan.changed if _is_as_embedded(store, id, Path(recorded) / id)]
    if others:
        raise ActionVitError(
            f"{here}: its name is `{dataset.name}`, and so is that of {recorded}, whose embeddings are in"
            f" {target.store.folder}; ids of other videos there: {len(others)} ({others[0]!r} is the first); give"
            " --dataset-name, another name for one of the two"
        )


def _is_as_embedded(store: FeatureStore, id: str, path: Path) -> bool:
    """Return whether size and time of a file vouch for the row."""
    at = store.index.find(id)
    try:
        return at is not None and fingerprint(path) == store.index.record(at).fingerprint
    except OSError:
        return False


def _bytes_to_come(target: _Target) -> int:
    """Return what the rows still to embed will take on disk, but for a few bytes a row."""
    arrays = target.job.output_spec().values()
    return len(target.plan.pending) * sum(math.prod(shape) * np.dtype(kind).itemsize for shape, kind in arrays)


def _check_room(cache: Path, rows: int, size: int) -> None:
    """Refuse, before hours of work, what the disk has no room for."""
    there = next(folder for folder in (cache.absolute(), *cache.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        raise ActionVitError(
            f"{cache}: embeddings of {rows} videos take {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free;"
            " leave out --save-tokens-after, take a --shard, or put --cache elsewhere"
        )


def _take_over(
    target: _Target, stack: ExitStack, review: Callable[[FeatureStore], Plan], *, wait: bool, **flush: Any
) -> None:
    """Become the store's writer; look again at what is left, for another writer may just have finished."""
    before = target.store.digest()
    target.writer = stack.enter_context(Writer(target.store, wait=wait, **flush))
    if target.store.digest() != before:
        target.plan = review(target.store)
    if target.plan.needs_apply:
        lost = target.writer.apply(target.plan)
        target.reused = len(target.plan.reusable) - len(lost)
        target.plan = replace(target.plan, missing=(*target.plan.missing, *lost))


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
    """Decode each video once, for every queue that lacks it.

    A video for which memory did not suffice is decoded once more at the end, by one worker alone.
    """
    wanted = [video for video in videos if any(video.id in queue.todo for _, queue in queues)]
    # Segments of one file in order of their starts: their ids sort as text.
    wanted.sort(key=lambda video: (str(video.path), video.segment.start if video.segment else 0.0))
    starved: list[Video] = []
    done = 0
    for count, batch in ((workers, wanted), (1, starved)):
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
                if batch is wanted and count > 1 and isinstance(item, Failure) and item.out_of_memory:
                    starved.append(by_id[item.id])
                    continue
                _take(item, queues, summary)
                done += 1
                on_video(done, len(wanted))
    for _, queue in queues:
        queue.finish()


def _take(item: Decoded | Failure, queues: Sequence[tuple[_Target, EncodeQueue]], summary: Summary) -> None:
    """Hand a decoded video to the queues that lack it, or record its failure."""
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
    """Count what the store holds of these videos now."""
    held = set(target.store.ids)
    present = [video_id for video_id in ids if video_id in held]
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
