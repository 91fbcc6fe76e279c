"""Stage 1: decode, sample, embed, cache; each video decoded once for all variants, each row published when whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from actionvit.features.clips import ClipSpec
from actionvit.features.decoding.decode import DecodePolicy, decoder_version
from actionvit.features.decoding.workers import Decoded, DecodeRequest, Failure, available_cores, decode_stream
from actionvit.features.files import fingerprint
from actionvit.features.store.keys import FeatureKey
from actionvit.features.store.ledger import NOWHERE
from actionvit.features.store.planning import Plan
from actionvit.features.store.store import FeatureStore
from actionvit.features.store.writer import Writer
from actionvit.features.timesformer.outputs import FramePool, Precision, encoder_key, quantities
from actionvit.features.timesformer.weights import Weights
from actionvit.pipeline.datasets.dataset import Dataset, Video
from actionvit.pipeline.extraction.caches import in_shard, store_folder
from actionvit.pipeline.extraction.lanes import Clock, Lane, VideoEncoder

SCHEMA = 1
"""Raised when the same key fields would mean other numbers or another layout of the store."""

Shard = tuple[int, int]
MakeEncoder = Callable[["Job", str], VideoEncoder]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One variant to extract: which weights, which views, which outputs."""

    variant: str
    weights: Weights
    spec: ClipSpec
    precision: Precision = "fp32"
    """Resolved: never `auto`."""
    frame_pool: FramePool = "cls"
    layers: tuple[int, ...] = ()
    """Blocks whose CLS is kept as well."""
    tokens_after: int | None = None
    """The block after which all tokens are kept as well."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of one variant's videos; they add up to the dataset's (or shard's)."""

    variant: str
    store: Path
    rows: int
    """Videos that have a row now."""
    reused: int
    embedded: int
    adopted: int
    """Rows copied from another id with the same content: renamed, moved or relabelled files."""
    failed: int
    """Videos without a row, from this run or an earlier one; `failures.csv` in the store's folder names them."""
    todo: int
    """Videos still to embed: after a dry run only."""
    flagged: int
    """Rows of damaged videos whose sampled frames were intact."""


@dataclass(slots=True, kw_only=True)
class Summary:
    """What a run did and where its time went (seconds; the phases overlap)."""

    outcomes: list[Outcome]
    videos: int
    workers: int
    clock: Clock
    seconds: float
    start: float
    """Planning, and loading libraries and weights."""
    decoded: int = 0

    @property
    def failed(self) -> int:
        """Videos that at least one variant lacks."""
        return max((outcome.failed for outcome in self.outcomes), default=0)

    @property
    def limit(self) -> tuple[str, float]:
        """Which phase bounds the run, and the share of the running time that it was busy."""
        busy = {
            "decoding": self.clock.decode / max(self.workers, 1),
            "the forward": self.clock.forward,
            "writing": self.clock.write,
        }
        name = max(busy, key=lambda phase: busy[phase])
        return name, min(busy[name] / max(self.seconds - self.start, 1e-9), 1.0)


@dataclass(slots=True)
class _Target:
    """A job, its store, and what is left to do there."""

    job: Job
    store: FeatureStore
    plan: Plan
    writer: Writer | None = None
    embedded: int = 0
    adopted: int = 0
    failed: int = 0


def extract(
    dataset: Dataset,
    jobs: Sequence[Job],
    *,
    cache: Path,
    policy: DecodePolicy = DecodePolicy(),
    device: str = "auto",
    workers: int | None = None,
    timeout: float = 60.0,
    shard: Shard | None = None,
    wait: bool = False,
    flush_seconds: float = 5.0,
    verify: bool = False,
    retry_failed: bool = False,
    dry_run: bool = False,
    make_encoder: MakeEncoder | None = None,
    on_video: Callable[[int, int], None] = lambda done, total: None,
) -> Summary:
    """Embed what the cache lacks of a dataset, for one or more variants, decoding each video once.

    Parameters
    ----------
    dataset : Dataset
        Its labels are not looked at: relabelling re-extracts nothing.
    jobs : sequence of Job
        One a variant; each has its own store below `cache/DATASET/`.
    shard : (i, n), optional
        Only the videos whose id falls to part i of n; each part is a store of its own, to be merged.
    wait : bool
        Wait for another writer of a store instead of failing.
    flush_seconds : float
        Embeddings are published when the oldest unpublished one is this old: what a kill can cost.
    verify : bool
        Rehash every video instead of trusting size and modification time.
    retry_failed : bool
        Try again what the ledger names though neither file nor decoder changed.
    dry_run : bool
        Only count.
    make_encoder : callable, optional
        `(job, device) -> VideoEncoder`; by default loads the weights. Not called where there is nothing to embed.
    on_video : callable
        Told (videos done, videos to do) after each.

    Returns
    -------
    Summary
        Counts a variant, seconds a phase. Failures are counted, not raised: each store's ledger names them.

    Raises
    ------
    ActionVitError
        If a store is held by another writer (without `wait`) or cannot be written.
    """
    began = time.perf_counter()
    videos = [video for video in dataset.videos if shard is None or in_shard(video.id, shard)]
    files = [(video.id, video.path) for video in videos]
    count = available_cores() if workers is None else workers
    load = make_encoder or _load_encoder
    summary = Summary(outcomes=[], videos=len(videos), workers=count, clock=Clock(), seconds=0.0, start=0.0)

    def review(store: FeatureStore) -> Plan:
        return store.plan(files, verify=verify, retry_failed=retry_failed, decoder=decoder_version())

    keys = [feature_key(job, policy) for job in jobs]  # all of them first: a mistake in one must write nothing
    stores = [_open(job, key, dataset, cache, shard) for job, key in zip(jobs, keys, strict=True)]
    targets = [_Target(job, store, review(store)) for job, store in zip(jobs, stores, strict=True)]
    with ExitStack() as stack:
        active = [] if dry_run else [target for target in targets if target.plan.todo or target.plan.adoptable]
        # One order of locks for all processes, whatever order the variants were given in: no deadlock.
        for target in sorted(active, key=lambda target: target.store.folder):
            _take_over(target, stack, review, wait=wait, flush_seconds=flush_seconds)
        # One thread for all forwards: it releases the GIL, so frames are gathered and rows written beside it.
        thread = ThreadPoolExecutor(1)
        stack.callback(thread.shutdown, cancel_futures=True)
        lanes = [
            (target, Lane(load(target.job, device), target.writer, frozenset(target.plan.todo), thread, summary.clock))
            for target in active
            if target.plan.todo and target.writer
        ]
        summary.start = time.perf_counter() - began
        if lanes:
            _run(videos, lanes, summary, policy=policy, workers=count, timeout=timeout, on_video=on_video)
    summary.outcomes = [_outcome(target, [video.id for video in videos], dry_run) for target in targets]
    summary.seconds = time.perf_counter() - began
    return summary


def feature_key(job: Job, policy: DecodePolicy) -> FeatureKey:
    """Return everything that a job's embeddings depend on; needs no torch.

    Raises
    ------
    ActionVitError
        If the model cannot do what is asked: a size of no whole patches, a block it has not.
    """
    quantities(job.weights.shape, job.spec, layers=job.layers, tokens_after=job.tokens_after)
    fields = encoder_key(
        job.weights,
        job.spec,
        precision=job.precision,
        frame_pool=job.frame_pool,
        layers=job.layers,
        tokens_after=job.tokens_after,
    )
    return FeatureKey(**fields, decoder=policy.key, schema=SCHEMA)


def _open(job: Job, key: FeatureKey, dataset: Dataset, cache: Path, shard: Shard | None) -> FeatureStore:
    """Open or create the job's store, `cache/DATASET/VARIANT-DIGEST`, with the shard's number behind it."""
    folder = store_folder(cache, dataset.name, job.variant, key, shard)
    info = {"root": str(dataset.root.resolve()), "layout": dataset.layout, "videos": len(dataset.videos)}
    info["weights"] = job.weights.source
    return FeatureStore.create(folder, key=key, dataset=dataset.name, variant=job.variant, info=info)


def _take_over(
    target: _Target, stack: ExitStack, review: Callable[[FeatureStore], Plan], *, wait: bool, flush_seconds: float
) -> None:
    """Become the store's writer; look again at what is left, for another writer may just have finished."""
    rows = len(target.store)
    target.writer = stack.enter_context(target.store.writer(wait=wait, flush_seconds=flush_seconds))
    if len(target.store) != rows:
        target.plan = review(target.store)
    if target.plan.adoptable:
        target.writer.adopt(target.plan)
        target.adopted = len(target.plan.renamed)


def _load_encoder(job: Job, device: str) -> VideoEncoder:
    from actionvit.features.timesformer.encoder import Encoder

    return Encoder(
        job.weights,
        job.spec,
        precision=job.precision,
        device=device,
        frame_pool=job.frame_pool,
        layers=job.layers,
        tokens_after=job.tokens_after,
    )


def _run(
    videos: Sequence[Video],
    lanes: Sequence[tuple[_Target, Lane]],
    summary: Summary,
    *,
    policy: DecodePolicy,
    workers: int,
    timeout: float,
    on_video: Callable[[int, int], None],
) -> None:
    """Decode each video once, for every lane that lacks it."""
    wanted = [video for video in videos if any(video.id in lane.todo for _, lane in lanes)]
    paths = {video.id: video.path for video in wanted}
    requests = (
        DecodeRequest(video.id, video.path, tuple(target.job.spec for target, lane in lanes if video.id in lane.todo))
        for video in wanted
    )
    with closing(decode_stream(requests, policy=policy, workers=workers, timeout=timeout)) as stream:
        for done, item in enumerate(stream, start=1):
            for target, lane in lanes:
                if item.id not in lane.todo:
                    continue
                if isinstance(item, Decoded):
                    lane.take(item)
                    target.embedded += 1
                else:
                    target.failed += 1
                    assert target.writer is not None
                    note_failure(target.writer, item, paths[item.id])
            if isinstance(item, Decoded):
                summary.decoded += 1
                summary.clock.decode += item.seconds
            on_video(done, len(wanted))
    for _, lane in lanes:
        lane.finish()


def note_failure(writer: Writer, failure: Failure, path: Path) -> None:
    """Put a failure into the ledger, with what identifies the file that failed."""
    try:
        vouch = fingerprint(path)
    except OSError:
        vouch = NOWHERE
    writer.fail(
        failure.id,
        failure.reason,
        failure.detail,
        failure.backend,
        failure.frames,
        fingerprint=vouch,
        decoder=decoder_version(),
    )


def _outcome(target: _Target, ids: Sequence[str], dry_run: bool) -> Outcome:
    """Count what the store holds of these videos now."""
    held = set(target.store.ids)
    present = [video_id for video_id in ids if video_id in held]
    return Outcome(
        variant=target.job.variant,
        store=target.store.folder,
        rows=len(present),
        reused=len(present) - target.embedded - target.adopted,
        embedded=target.embedded,
        adopted=target.adopted,
        failed=len(target.plan.failed) + target.failed,
        todo=len(target.plan.todo) if dry_run else 0,
        flagged=sum(bool(row.flags) for row in target.store.rows(present)),
    )
