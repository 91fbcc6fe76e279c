"""Engines that run the shards of one extraction in parallel: processes on this machine, or Ray tasks on many.

The unit of work is `extract(shard=(i, n))`. Each attempt at a shard writes a cache of its own, so that a machine
that is cut off but still running disturbs no other; finished rows of earlier attempts are reused. The driver alone
retries and merges, then runs a plain local extraction: the result does not depend on the engine.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Literal, Protocol

from actionvit.errors import ActionVitError, SettingError, one_line
from actionvit.features.decoding import DecodePolicy, available_cores
from actionvit.features.encoder import EncoderJob
from actionvit.features.lifeline import exit_with_parent
from actionvit.features.store.catalog import Shard
from actionvit.pipeline.datasets.dataset import Dataset
from actionvit.pipeline.extraction.extract import MakeEncoder, extract
from actionvit.pipeline.extraction.job import ExtractOptions

EngineKind = Literal["here", "ray"]
RAY_WORKERS = 4
"""Maximum default of decoding workers per Ray task: nodes may have fewer cores than the driver's machine."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt at one shard; sent to the process that runs it."""

    dataset: Dataset
    """The shard's videos only."""
    jobs: tuple[EncoderJob, ...]
    shard: Shard = (1, 1)
    cache: Path = Path()
    """Cache of this attempt."""
    earlier: tuple[Path, ...] = ()
    """Caches of earlier attempts at the shard, whose rows are reused."""
    visible: Mapping[str, Path] = field(default_factory=dict)
    """Paths that the driver sees, by a name for the error on a machine that does not see them."""
    policy: DecodePolicy
    device: str
    options: ExtractOptions
    make_encoder: MakeEncoder | None = None

    @property
    def host_file(self) -> Path:
        """A file that names the host which runs the attempt."""
        return self.cache / "host"

    @property
    def host(self) -> str:
        """The host that runs the attempt, if it has begun there."""
        try:
            return self.host_file.read_text(encoding="utf-8")
        except OSError:
            return "an unknown host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The end of an attempt."""

    host: str = ""
    """Empty if the process is lost."""
    error: str = ""
    """A user's mistake or a bad input: not retried. Empty if the shard is done."""
    lost: str = ""
    """Why the process ended without a result: retried. Empty if it did not."""


def run_attempt(attempt: Attempt) -> Result:
    """Extract a shard in this process; errors that a retry would meet again become `Result.error`."""
    host = socket.gethostname()
    for name, path in attempt.visible.items():
        if not path.exists():
            return Result(host=host, error=f"{path}: {name} not visible on this machine; use a shared file system")
    attempt.host_file.write_text(host, encoding="utf-8")
    try:
        extract(
            attempt.dataset,
            attempt.jobs,
            cache=attempt.cache,
            policy=attempt.policy,
            device=attempt.device,
            shard=attempt.shard,
            reuse_from=attempt.earlier,
            make_encoder=attempt.make_encoder,
            **attempt.options,
        )
    except ActionVitError as error:
        return Result(host=host, error=str(error))
    return Result(host=host)


class Engine(Protocol):
    """Runs attempts; a context that ends all of them when it is left."""

    @property
    def slots(self) -> int:
        """Attempts to start before one of them has ended."""

    def __enter__(self) -> Engine: ...

    def __exit__(self, *_: object) -> None: ...

    def start(self, attempt: Attempt) -> Any:
        """Start an attempt and return a handle."""

    def finished(self, handles: Sequence[Any], seconds: float) -> list[tuple[Any, Result]]:
        """Wait at most some seconds; return the handles whose attempts have ended, with their results."""


class LocalEngine:
    """One process per device of this machine, `devices` such as `cuda:0`, `cuda:1`."""

    def __init__(self, devices: Sequence[str]) -> None:
        self.slots = len(devices)
        self._free = list(devices)
        self._running: dict[Connection, tuple[SpawnProcess, str]] = {}

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:
        for process, device in self._running.values():
            process.kill()
            process.join()
            self._free.append(device)
        self._running.clear()

    def start(self, attempt: Attempt) -> Connection:
        """Start a process on a free device."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        device = self._free.pop()
        process = context.Process(target=_run_and_send, args=(replace(attempt, device=device), theirs))
        process.start()
        theirs.close()
        self._running[ours] = process, device
        return ours

    def finished(self, handles: Sequence[Connection], seconds: float) -> list[tuple[Connection, Result]]:
        """Return the attempts whose processes have sent a result or died."""
        ready = set(wait(handles, seconds))
        return [(handle, self._end(handle)) for handle in handles if handle in ready]

    def _end(self, handle: Connection) -> Result:
        process, device = self._running.pop(handle)
        self._free.append(device)
        try:
            result: Result = handle.recv()
            process.join()
        except (EOFError, OSError):
            process.join()
            result = Result(lost=f"the process ended with code {process.exitcode}")
        handle.close()
        return result


def _run_and_send(attempt: Attempt, connection: Connection) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    exit_with_parent(parent.sentinel)
    connection.send(run_attempt(attempt))


class RayEngine:
    """Ray tasks; needs `actionvit[ray]`.

    Parameters
    ----------
    address : str, optional
        The cluster, `auto` or `ray://HOST:PORT`; by default a cluster of this machine only.
    cpus, gpus : float
        Resources of one attempt.
    """

    def __init__(self, address: str | None, *, cpus: float, gpus: float) -> None:
        if find_spec("ray") is None:
            raise SettingError("engine: got ray, which is not installed: `pip install 'actionvit[ray]'`")
        self.address = address
        self.resources = {"CPU": cpus, "GPU": gpus}
        self._refs: set[Any] = set()

    def __enter__(self) -> RayEngine:
        import ray

        self._ray = ray
        with contextlib.ExitStack() as stack:  # of lost nodes Ray prints pages on standard output
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(Path(os.devnull).open("w"))))
            self._connect()
            self._stack = stack.pop_all()
        # max_retries: Ray's own retries would run two attempts in one folder.
        options = {"num_cpus": self.resources["CPU"], "num_gpus": self.resources["GPU"], "max_retries": 0}
        self._task = ray.remote(**options)(run_attempt)
        return self

    def _connect(self) -> None:
        ray = self._ray
        try:
            ray.init(address=self.address, log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError) as error:
            raise SettingError(f"address={self.address}: no Ray cluster answers: {one_line(error)}") from error
        if not any(node["Alive"] and self._fits(node["Resources"]) for node in ray.nodes()):
            text = ", ".join(f"{count:g} {name}" for name, count in self.resources.items() if count)
            logger.warning("no node of the Ray cluster has %s: waiting for one; fewer workers= need fewer CPUs", text)

    def __exit__(self, *_: object) -> None:
        for ref in self._refs:
            self._ray.cancel(ref, force=True)
        self._refs.clear()
        self._ray.shutdown()
        self._stack.close()

    @property
    def slots(self) -> int:
        """Twice the attempts that fit into the cluster now: Ray queues the others, and may add nodes for them."""
        return max(2, 2 * self._fits(self._ray.cluster_resources()))

    def _fits(self, available: Mapping[str, float]) -> int:
        """Return how many attempts fit into some resources."""
        return min(int(available.get(name, 0) // count) for name, count in self.resources.items() if count)

    def start(self, attempt: Attempt) -> Any:
        """Submit a task."""
        ref = self._task.remote(attempt)
        self._refs.add(ref)
        return ref

    def finished(self, handles: Sequence[Any], seconds: float) -> list[tuple[Any, Result]]:
        """Return the tasks that have ended."""
        ready, _ = self._ray.wait(list(handles), num_returns=1, timeout=seconds)
        return [(ref, self._end(ref)) for ref in ready]

    def _end(self, ref: Any) -> Result:
        self._refs.discard(ref)
        try:
            result: Result = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError:  # an unexpected exception keeps its traceback
            raise
        except self._ray.exceptions.RayError as error:
            return Result(lost=one_line(error).partition(". ")[0])
        return result


def make_engine(
    kind: EngineKind, device: str, *, workers: int | None = None, address: str | None = None
) -> tuple[Engine, int, int]:
    """Return an engine, its default number of shards, and the decoding workers of each attempt.

    Parameters
    ----------
    kind : {"here", "ray"}
        Processes of this machine, one per GPU, or tasks of a Ray cluster.
    device : str
        Device of an attempt; with `here` and `cuda`, every GPU of the machine.
    workers : int, optional
        Decoding processes: per Ray task, or shared by the processes of this machine. By default one per core, on Ray
        at most `RAY_WORKERS`.
    address : str, optional
        As for `RayEngine`.
    """
    count = available_cores() if workers is None else workers
    if kind == "ray":
        count = min(count, RAY_WORKERS) if workers is None else count
        return RayEngine(address, cpus=max(count, 1), gpus=int(device.startswith("cuda"))), 32, count
    devices = [device]
    if device == "cuda":
        import torch

        devices = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return LocalEngine(devices), 4 * len(devices), max(1, count // len(devices)) if count else 0
