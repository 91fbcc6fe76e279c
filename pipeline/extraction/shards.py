"""The shard of this process, from the variables that schedulers set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from actionvit.errors import SettingError
from actionvit.features.store.catalog import Shard

SHARDS = "ACTIONVIT_SHARDS"
"""Number of shards, for schedulers that set only the index."""
FIRST_INDEX = "ACTIONVIT_FIRST_INDEX"


@dataclass(frozen=True, slots=True)
class Scheduler:
    """Names of a scheduler's variables; an empty name is a variable that it does not have."""

    name: str
    index: str
    count: str
    first: str = ""
    """First index of the array, 0 if not set."""
    last: str = ""
    step: str = ""


SCHEDULERS = (
    Scheduler(
        "Slurm array",
        "SLURM_ARRAY_TASK_ID",
        "SLURM_ARRAY_TASK_COUNT",
        "SLURM_ARRAY_TASK_MIN",
        "SLURM_ARRAY_TASK_MAX",
        "SLURM_ARRAY_TASK_STEP",
    ),
    Scheduler("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),  # a batch script has SLURM_PROCID and SLURM_NTASKS, too
    Scheduler("Kubernetes indexed job", "JOB_COMPLETION_INDEX", SHARDS),
    Scheduler("PBS array", "PBS_ARRAY_INDEX", SHARDS, FIRST_INDEX),
    Scheduler("Torque array", "PBS_ARRAYID", SHARDS, FIRST_INDEX),
    Scheduler("SGE array", "SGE_TASK_ID", "", "SGE_TASK_FIRST", "SGE_TASK_LAST", "SGE_TASK_STEPSIZE"),
    Scheduler("SkyPilot", "SKYPILOT_NODE_RANK", "SKYPILOT_NUM_NODES"),
    Scheduler("torchrun", "RANK", "WORLD_SIZE"),
)
"""In order of precedence."""
UNSET = ("", "undefined")
"""SGE sets its variables to `undefined` outside of arrays."""


def shard_from_environment(environment: Mapping[str, str] = os.environ) -> tuple[Shard, str]:
    """Return the shard (i, n), i from 1, and the scheduler it comes from.

    Parameters
    ----------
    environment : mapping
        Environment variables; of several schedulers' variables the first in `SCHEDULERS` wins.

    Raises
    ------
    ActionVitError
        If no scheduler's variables are set, or their values are not i of n; the error names variables and values.
    """
    for scheduler in SCHEDULERS:
        if environment.get(scheduler.index, "") not in UNSET:
            return _shard(scheduler, environment), scheduler.name
    names = ", ".join(scheduler.index for scheduler in SCHEDULERS)
    raise SettingError(f"shard: got auto, but no scheduler's variable is set ({names}); give shard=i/n")


def _shard(scheduler: Scheduler, environment: Mapping[str, str]) -> Shard:
    required = [scheduler.index, scheduler.count or scheduler.last]
    extra = (scheduler.first, scheduler.last, scheduler.step)
    optional = [name for name in extra if name not in required and environment.get(name, "") not in UNSET]
    values = ", ".join(f"{name}={environment.get(name, '')}" for name in required + optional)
    try:
        number = {name: int(environment[name]) for name in required + optional}
    except (KeyError, ValueError):
        raise SettingError(
            f"shard: got auto, and {scheduler.name} has {values}, expected whole numbers; set {required[1]}, or give"
            " shard=i/n"
        ) from None
    first = number.get(scheduler.first, 0)
    length = number[scheduler.last] - first + 1 if scheduler.last in number else None
    count = number.get(scheduler.count, length or 0)
    index = number[scheduler.index] - first
    if not 0 <= index < count or length not in (None, count) or number.get(scheduler.step, 1) != 1:
        raise SettingError(
            f"shard: got auto, and {scheduler.name} has {values}, not one of {count} consecutive indices from {first};"
            " use an array without gaps, or give shard=i/n"
        )
    return index + 1, count
