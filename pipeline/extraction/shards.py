"""The shard of this process, from the variables that schedulers set."""

from __future__ import annotations

import os
from collections.abc import Mapping

from actionvit.errors import ActionVitError
from actionvit.features.store.catalog import Shard

SHARDS = "ACTIONVIT_SHARDS"
"""Number of shards, for schedulers that tell a task its index only."""
SCHEDULERS: tuple[tuple[str, str, str, int], ...] = (
    ("Slurm array", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", 0),
    ("srun", "SLURM_PROCID", "SLURM_NTASKS", 0),
    ("Kubernetes indexed job", "JOB_COMPLETION_INDEX", SHARDS, 0),
    ("PBS array", "PBS_ARRAY_INDEX", SHARDS, 0),
    ("SGE array", "SGE_TASK_ID", "SGE_TASK_LAST", 1),
    ("SkyPilot", "SKYPILOT_NODE_RANK", "SKYPILOT_NUM_NODES", 0),
    ("torchrun", "RANK", "WORLD_SIZE", 0),
)
"""(name, variable of the index, variable of the count, first index), in order of precedence."""
FIRST_VARIABLES = {
    "SLURM_ARRAY_TASK_ID": "SLURM_ARRAY_TASK_MIN",
    "SGE_TASK_ID": "SGE_TASK_FIRST",
    "PBS_ARRAY_INDEX": "ACTIONVIT_FIRST_INDEX",
}
"""Variables that give an array's first index."""


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
    for scheduler, index_name, count_name, first in SCHEDULERS:
        if environment.get(index_name, "undefined") != "undefined":  # SGE outside of arrays
            return _shard(environment, scheduler, index_name, count_name, first), scheduler
    names = ", ".join(index_name for _, index_name, _, _ in SCHEDULERS)
    raise ActionVitError(f"shard: got auto, but no scheduler's variable is set ({names}); give shard=i/n")


def _shard(environment: Mapping[str, str], scheduler: str, index_name: str, count_name: str, first: int) -> Shard:
    first_name = FIRST_VARIABLES.get(index_name, "")
    names = [index_name, count_name, *([first_name] if first_name in environment else [])]
    values = ", ".join(f"{name}={environment.get(name, '')}" for name in names)
    try:
        numbers = [int(environment[name]) for name in names]
    except (KeyError, ValueError):
        raise ActionVitError(
            f"shard: got auto, and {scheduler} has {values}, expected whole numbers; set {count_name}, or give"
            " shard=i/n"
        ) from None
    index, count = numbers[0], numbers[1]
    start = numbers[2] if len(numbers) > 2 else first
    if scheduler == "SGE array":  # SGE tells the last index, not the count
        count = count - start + 1
    step = environment.get("SLURM_ARRAY_TASK_STEP" if scheduler == "Slurm array" else "SGE_TASK_STEPSIZE", "1")
    if not 0 <= index - start < count or (scheduler in ("Slurm array", "SGE array") and step not in ("1", "undefined")):
        raise ActionVitError(
            f"shard: got auto, and {scheduler} has {values}, not one of {count} consecutive indices from {start};"
            " use an array without gaps, or give shard=i/n"
        )
    return index - start + 1, count
