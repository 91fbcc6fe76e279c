"""Data-parallel training: gradients are summed over ranks, everything else is computed identically on each rank.

The model is not wrapped in DistributedDataParallel: each rank accumulates the gradients of its clips, divided by the
size of the whole step, and one all-reduce gives the gradients that a single process would have computed. Ranks may use
different micro-batch sizes, so one rank that runs out of memory does not stop the others.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from actionvit.errors import ActionVitError
from actionvit.pipeline.finetuning.micro_batch import out_of_memory
from actionvit.text import first_line

SET_BY_TORCHRUN = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
TIMEOUT = 600.0


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """Rank of this process among the processes that train together, and the collectives between them."""

    rank: int = 0
    world: int = 1
    device: str = "cpu"
    timeout: float = TIMEOUT
    """Seconds that a collective waits for the other ranks."""

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes files and prints."""
        return self.rank == 0

    def all_reduce_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over all ranks, in one message."""
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        with _collective():
            dist.all_reduce(flat)
        start = 0
        for tensor in tensors:
            tensor.detach().copy_(flat[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()

    def all_reduce(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the sum of an array over all ranks."""
        if self.world == 1:
            return array
        with _collective():
            tensor = torch.from_numpy(array).to(self.device)
            dist.all_reduce(tensor)
            return np.asarray(tensor.cpu().numpy())

    def gather_dict(self, values: Mapping[str, str]) -> dict[str, str]:
        """Return the union of all ranks' dictionaries, the same on each rank."""
        gathered: list[Any] = [dict(values)] * self.world
        if self.world > 1:
            with _collective():
                dist.all_gather_object(gathered, dict(values))
        return {name: value for part in gathered for name, value in part.items()}

    def broadcast_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by those of rank 0."""
        with _collective():
            for tensor in tensors if self.world > 1 else ():
                dist.broadcast(tensor.detach(), 0)

    def barrier(self) -> None:
        """Wait until all ranks have reached this call."""
        if self.world > 1:
            with _collective():
                dist.barrier()

    def on_main(self, work: Callable[[], None]) -> None:
        """Run `work` on rank 0 while the other ranks wait: for hours if need be, but only while rank 0 is alive.

        Rank 0 sends a heartbeat, so that the timeout of a collective does not limit the duration of `work`.
        """
        if self.world == 1:
            work()
        elif not self.is_main:
            while not self._heartbeat(0):
                pass
        else:
            done, errors = threading.Event(), list[ActionVitError]()

            def beat() -> None:
                try:
                    while not done.wait(min(self.timeout / 4, 10)):
                        self._heartbeat(0)
                except ActionVitError as error:
                    errors.append(error)

            thread = threading.Thread(target=beat, daemon=True)
            thread.start()
            try:
                work()
            finally:
                done.set()
                thread.join()
            for error in errors:
                raise error
            self._heartbeat(1)

    def _heartbeat(self, done: int) -> int:
        """Broadcast from rank 0 whether its work is done."""
        flag = torch.tensor([done], device=self.device)
        with _collective():
            dist.broadcast(flag, 0)
            return int(flag)


@contextmanager
def _collective() -> Iterator[None]:
    """Turn the error of a lost rank into one line: the traceback here would hide the cause, which that rank prints."""
    try:
        yield
    except RuntimeError as error:
        if out_of_memory(error) or str(error).startswith("CUDA error"):  # a failure of this rank
            raise
        reason = first_line(error)
        if "imed out" in reason or "imeout" in reason:
            raise ActionVitError(
                f"another process of this training does not answer ({reason}): end all processes and continue with"
                " resume=True"
            ) from error
        raise ActionVitError(
            f"another process of this training has stopped; its own message has the cause ({reason})"
        ) from error


@contextmanager
def init_distributed(device: str, *, timeout: float = TIMEOUT) -> Iterator[ProcessGroup]:
    """Join the process group that `torchrun` started: gloo on CPUs, NCCL on GPUs, one GPU per process.

    Without `torchrun` (WORLD_SIZE unset or 1) the group is this process alone. A rank that does not reach a collective
    within `timeout` seconds, because it was stopped or lost, ends the others with a one-line error.

    Raises
    ------
    ActionVitError
        If WORLD_SIZE is set without the other variables of `torchrun`, or there are fewer GPUs than processes.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield ProcessGroup(device=device)
        return
    if missing := [name for name in SET_BY_TORCHRUN if name not in os.environ]:
        raise ActionVitError(
            f"WORLD_SIZE is {world} and {missing[0]} is not set: start all processes with torchrun, or unset WORLD_SIZE"
        )
    on_gpu = device.startswith("cuda")
    if on_gpu:
        processes, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
        if processes > gpus:
            raise ActionVitError(
                f"{processes} processes on this machine, and torch finds {gpus} GPUs: start one process per GPU"
            )
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
        os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")  # a timeout raises; otherwise it aborts the process
    # Imported before the group exists: imported later (by an optimizer) it would keep the group as a default argument,
    # gloo's threads would outlive `destroy_process_group`, and could abort the interpreter at exit.
    importlib.import_module("torch.distributed.nn.functional")
    with _collective():
        dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(seconds=timeout))
    try:
        yield ProcessGroup(dist.get_rank(), world, device, timeout)
    except BaseException:
        # NCCL would wait here for the other ranks, which wait for this one in a collective, and the error would never
        # be printed; torchrun ends them once this process has ended. gloo does not wait, and its threads could abort an
        # interpreter at exit.
        if not on_gpu:
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()
