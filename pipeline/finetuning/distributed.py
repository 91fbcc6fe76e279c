"""Several processes as one training: gradients are summed, everything else is computed by all alike.

No wrapper around the model: each rank adds up the gradients of its share, divided by the size of the whole step, and
one sum over ranks makes them what one process would have computed. Ranks may cut their share into different
micro-batches, so that one of them running out of memory stops nobody.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
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

SET_BY_TORCHRUN = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True)
class Ranks:
    """One process among those that train together."""

    rank: int = 0
    world: int = 1
    device: str = "cpu"

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over all ranks: one message for all of them."""
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        with _together():
            dist.all_reduce(flat)
        start = 0
        for tensor in tensors:
            tensor.detach().copy_(flat[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()

    def share(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the sum over all ranks of an array in which each filled its own rows and left the rest at 0."""
        if self.world == 1:
            return array
        with _together():
            tensor = torch.from_numpy(array).to(self.device)
            dist.all_reduce(tensor)
            return np.asarray(tensor.cpu().numpy())

    def union(self, found: Mapping[str, str]) -> dict[str, str]:
        """Return what all ranks found, by name, the same on each."""
        every: list[Any] = [dict(found)] * self.world
        if self.world > 1:
            with _together():
                dist.all_gather_object(every, dict(found))
        return {name: value for each in every for name, value in each.items()}

    def agree(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by the first rank's."""
        with _together():
            for tensor in tensors if self.world > 1 else ():
                dist.broadcast(tensor.detach(), 0)

    def wait(self) -> None:
        """Return when all ranks have come here."""
        if self.world > 1:
            with _together():
                dist.barrier()


@contextmanager
def _together() -> Iterator[None]:
    """Say in a line that another rank is gone; the traceback here would hide why."""
    try:
        yield
    except RuntimeError as error:
        if out_of_memory(error) or str(error).startswith("CUDA error"):  # this rank's own trouble
            raise
        said = str(error).splitlines()[0]
        raise ActionVitError(f"another process of this training has stopped, and says why itself ({said})") from error


@contextmanager
def ranks(device: str) -> Iterator[Ranks]:
    """Join the processes that `torchrun` started, for a while; by itself a process is all there is.

    gloo on the CPU, NCCL on GPUs, one GPU a process.

    Raises
    ------
    ActionVitError
        If WORLD_SIZE is set and what else `torchrun` sets is not, or there are fewer GPUs than processes.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks(device=device)
        return
    if missing := [name for name in SET_BY_TORCHRUN if name not in os.environ]:
        raise ActionVitError(
            f"WORLD_SIZE is {world} and {missing[0]} is not set: start all processes with torchrun, or unset WORLD_SIZE"
        )
    on_gpu = device.startswith("cuda")
    if on_gpu:
        here, there = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
        if here > there:
            raise ActionVitError(f"{here} processes on this machine, and torch finds {there} GPUs: start one for each")
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    # Optimizers import it, and imported when there is a group it keeps that as a default argument for good: gloo's
    # threads then outlive the farewell below, and one that is late aborts an interpreter that is ending.
    importlib.import_module("torch.distributed.nn.functional")
    # The first rank may take hours to extract tokens while the others wait; torch would give up after ten minutes.
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(days=7))
    yield Ranks(dist.get_rank(), world, device)
    # Not after an exception: NCCL would wait here for the others, and they for this process in a sum that never comes,
    # its message unprinted. Once it has ended, torchrun ends the others.
    dist.destroy_process_group()
