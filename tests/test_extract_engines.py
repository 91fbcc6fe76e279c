"""Shards from a scheduler's variables, and extraction on engines: lost attempts, restarts, users' errors."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_store import environment
from small_extraction import draw, extract, extraction, store_in

from actionvit.errors import ActionVitError
from actionvit.features.decoding import DecodePolicy
from actionvit.features.sampling import ClipSpec
from actionvit.features.store.speed import read_speed
from actionvit.features.timesformer.checkpoint import find_weights
from actionvit.pipeline.datasets import load_dataset
from actionvit.pipeline.datasets.synthetic.dataset import write_avi
from actionvit.pipeline.extraction.driver import ENGINE_FOLDER, extract_on
from actionvit.pipeline.extraction.engines import Attempt, LocalEngine, make_engine, run_attempt
from actionvit.pipeline.extraction.job import Job
from actionvit.pipeline.extraction.shards import shard_from_environment

SMALL = {"workers": 1, "flush_seconds": 0.0}


@pytest.mark.parametrize(
    ("variables", "shard", "scheduler"),
    [
        (
            "SLURM_ARRAY_TASK_ID=7 SLURM_ARRAY_TASK_COUNT=4 SLURM_ARRAY_TASK_MIN=5 SLURM_ARRAY_TASK_MAX=8"
            " SLURM_ARRAY_TASK_STEP=1 SLURM_PROCID=0 SLURM_NTASKS=1",
            (3, 4),
            "Slurm array",
        ),
        ("SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=2 RANK=1 WORLD_SIZE=9", (1, 2), "srun"),
        ("JOB_COMPLETION_INDEX=3 ACTIONVIT_SHARDS=4", (4, 4), "Kubernetes indexed job"),
        ("PBS_ARRAY_INDEX=0 ACTIONVIT_SHARDS=2", (1, 2), "PBS array"),
        ("PBS_ARRAY_INDEX=2 ACTIONVIT_SHARDS=2 ACTIONVIT_FIRST_INDEX=1", (2, 2), "PBS array"),
        ("PBS_ARRAYID=1 ACTIONVIT_SHARDS=2", (2, 2), "Torque array"),
        ("SGE_TASK_ID=1 SGE_TASK_FIRST=1 SGE_TASK_LAST=3 SGE_TASK_STEPSIZE=1", (1, 3), "SGE array"),
        ("SGE_TASK_ID=undefined SGE_TASK_LAST=undefined RANK=2 WORLD_SIZE=3", (3, 3), "torchrun"),
        ("SKYPILOT_NODE_RANK=1 SKYPILOT_NUM_NODES=2", (2, 2), "SkyPilot"),
    ],
)
def test_shard_comes_from_the_scheduler(variables: str, shard: tuple[int, int], scheduler: str) -> None:
    found = dict(pair.split("=") for pair in variables.split())
    assert shard_from_environment(found) == (shard, scheduler)


@pytest.mark.parametrize(
    ("variables", "match"),
    [
        ("", "no scheduler's variable is set"),
        ("JOB_COMPLETION_INDEX=3", "ACTIONVIT_SHARDS=.* set ACTIONVIT_SHARDS"),
        ("RANK=3 WORLD_SIZE=3", "RANK=3, WORLD_SIZE=3, not one of 3"),
        ("RANK=x WORLD_SIZE=3", "RANK=x.*whole numbers"),
        ("SLURM_ARRAY_TASK_ID=2 SLURM_ARRAY_TASK_COUNT=4 SLURM_ARRAY_TASK_STEP=2", "without gaps"),
        (  # --array=3,7
            "SLURM_ARRAY_TASK_ID=3 SLURM_ARRAY_TASK_COUNT=2 SLURM_ARRAY_TASK_MIN=3 SLURM_ARRAY_TASK_MAX=7",
            "without gaps",
        ),
        ("SLURM_PROCID=0 SLURM_NTASKS=4", "SLURM_STEP_NUM_TASKS=, expected"),  # a batch script without srun
        ("SGE_TASK_ID=4 SGE_TASK_FIRST=2 SGE_TASK_LAST=8 SGE_TASK_STEPSIZE=2", "without gaps"),
    ],
)
def test_variables_that_do_not_fit_are_refused(variables: str, match: str) -> None:
    with pytest.raises(ActionVitError, match=match):
        shard_from_environment(dict(pair.split("=") for pair in variables.split()))


def test_auto_shard_is_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    monkeypatch.setenv("ACTIONVIT_SHARDS", "2")
    result = extract(draw(tmp_path / "clips", 3), tmp_path / "cache", "--shard", "auto")
    assert "shard 2 of 2, from Kubernetes indexed job" in result.stderr
    assert store_in(tmp_path / "cache").folder.name.endswith(".shard-2-of-2")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Clips, one of them broken, and the digest of their store when one process makes it."""
    folder = tmp_path_factory.mktemp("engine")
    root = draw(folder / "clips", 10)
    (root / "hop" / "broken.avi").write_bytes(b"no video")
    assert extract(root, folder / "cache").exit_code == 3
    return root, store_in(folder / "cache").digest()


def job() -> Job:
    return Job(variant="tiny", weights=find_weights("tiny"), spec=ClipSpec(num_frames=2, size=32))


class KillingEngine(LocalEngine):
    """Kills the process of one shard when its first part appears, once per entry of `kills`."""

    kills = 1

    def finished(self, handles, seconds):
        for attempt_cache in list(self.caches) if self.kills else ():
            if list(attempt_cache.glob("*/*/part-*.h5")):
                process, _device = self._running[self.caches.pop(attempt_cache)]
                process.kill()
                self.kills -= 1
                break
        return super().finished(handles, 0.02)

    def start(self, attempt: Attempt):
        handle = super().start(attempt)
        self.caches = {**getattr(self, "caches", {}), attempt.cache: handle}
        return handle


def test_lost_attempt_is_repeated_and_changes_nothing(tmp_path: Path, clips: tuple[Path, str]) -> None:
    root, digest = clips
    cache = tmp_path / "cache"
    summary = extract_on(KillingEngine(["cpu"]), load_dataset(root), [job()], cache=cache, shards=2, **SMALL)
    assert store_in(cache).digest() == digest and summary.outcomes[0].rows == 10
    (lost,) = summary.lost
    assert lost.startswith(("shard 1 of 2 on ", "shard 2 of 2 on ")) and "ended with code -9" in lost
    assert [failure.id for failure in store_in(cache).failures()] == ["hop/broken.avi"]
    assert [path.name for path in cache.iterdir()] == ["clips"] and not list(cache.rglob(".tmp-*"))
    assert len(list(cache.glob("*/*"))) == 1


def test_rows_in_the_cache_are_not_made_again(tmp_path: Path, clips: tuple[Path, str]) -> None:
    root = Path(shutil.copytree(clips[0], tmp_path / "clips"))
    cache = tmp_path / "cache"
    assert extract(root, cache).exit_code == 3
    (root / "hop" / "new.avi").write_bytes((root / "hop" / "00.avi").read_bytes())  # copied from the row of 00
    (root / "hop" / "05.avi").write_bytes((root / "hop" / "09.avi").read_bytes())  # another video of this name
    random = np.random.RandomState(1)
    for number in (1, 2):
        write_avi(root / "hop" / f"0{number}.avi", random.randint(0, 256, (9, 48, 64, 3)).astype(np.uint8))
    summary = extract_on(LocalEngine(["cpu"]), load_dataset(root), [job()], cache=cache, shards=1, **SMALL)
    (outcome,) = summary.outcomes
    assert (outcome.rows, outcome.cached, outcome.reused, outcome.embedded) == (11, 7, 1, 3)
    assert extract(root, tmp_path / "other").exit_code == 3
    assert store_in(cache).digest() == store_in(tmp_path / "other").digest()


def test_each_device_gets_a_process(tmp_path: Path, clips: tuple[Path, str]) -> None:
    root, digest = clips
    cache, devices = tmp_path / "cache", ["cpu:0", "cpu:1"]
    extract_on(LocalEngine(devices), load_dataset(root), [job()], cache=cache, shards=4, **SMALL)
    assert {speed.device for speed in read_speed(store_in(cache).folder)} == set(devices)
    assert store_in(cache).digest() == digest


def test_engine_here_runs_a_process_per_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    for device, workers, expected in (("cuda", 6, 3), ("cuda:1", 6, 1), ("cpu", 6, 1)):
        engine, shards, workers_each = make_engine("here", device, workers=workers)
        assert engine.slots == expected and shards == 4 * expected
        assert workers_each == workers // expected


def test_attempt_where_nothing_is_visible_decodes_nothing(tmp_path: Path, clips: tuple[Path, str]) -> None:
    dataset = load_dataset(clips[0])
    for name in ("cache", "video"):
        visible = {name: tmp_path / "elsewhere"}
        attempt = Attempt(
            dataset=dataset, jobs=(job(),), cache=tmp_path / "try", visible=visible, policy=DecodePolicy(),
            device="cpu", options=SMALL,
        )  # fmt: skip
        result = run_attempt(attempt)
        assert f"elsewhere: {name} not visible on this machine" in result.error and result.host
        assert not (tmp_path / "try").exists()


def test_missing_ray_is_one_line_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = extract(draw(tmp_path / "clips", 1), tmp_path / "cache", "--engine", "ray")
    assert isinstance(result.exception, ActionVitError) and "which is not installed: `pip" in str(result.exception)
    assert not (tmp_path / "cache").exists()


def test_users_error_is_not_repeated(tmp_path: Path, clips: tuple[Path, str]) -> None:
    root, _ = clips
    cache = tmp_path / "cache"
    bad = replace(job(), weights=replace(find_weights("tiny"), file=tmp_path / "gone.safetensors"))
    with pytest.raises(ActionVitError, match=r"^on .*gone\.safetensors"):
        extract_on(LocalEngine(["cpu"]), load_dataset(root), [bad], cache=cache, shards=1, **SMALL)
    assert len(list((cache / ENGINE_FOLDER).glob("*/1-of-1.try-*"))) == 1


def processes_of(group: int) -> list[str]:
    """The running processes of a process group; zombies do not count."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, pgrp = stat.read_text().rpartition(") ")[2].split()[:3]
            if int(pgrp) == group and state not in "ZX":
                found.append((stat.parent / "cmdline").read_text().replace("\0", " "))
    return found


DRIVER = """
import sys
sys.path.insert(0, sys.argv[3])
if __name__ == "__main__":
    from pathlib import Path
    from actionvit.pipeline.datasets import load_dataset
    from actionvit.pipeline.extraction.driver import extract_on
    from actionvit.pipeline.extraction.engines import LocalEngine
    from test_extract_engines import SMALL, job
    dataset, cache = load_dataset(Path(sys.argv[1])), Path(sys.argv[2])
    extract_on(LocalEngine(["cpu"]), dataset, [job()], cache=cache, shards=2, **SMALL)
"""


def test_killed_driver_goes_on_when_started_again(tmp_path: Path, clips: tuple[Path, str]) -> None:
    root, digest = clips
    cache, script = tmp_path / "cache", tmp_path / "driver.py"
    script.write_text(DRIVER)
    command = [sys.executable, str(script), str(root), str(cache), str(Path(__file__).parent)]
    with subprocess.Popen(command, env=environment(), start_new_session=True) as driver:
        while driver.poll() is None and not list(cache.glob(f"{ENGINE_FOLDER}/*/*/*/*/part-*.h5")):
            time.sleep(0.01)
        driver.kill()
    deadline = time.monotonic() + 20
    while left := processes_of(driver.pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    assert list(cache.glob(f"{ENGINE_FOLDER}/*/*/*/*/part-*.h5"))
    subprocess.run(command, env=environment(), check=True)
    assert store_in(cache).digest() == digest
    assert [path.name for path in cache.iterdir()] == ["clips"]


def test_interrupt_leaves_no_process_and_usable_rows(tmp_path: Path, clips: tuple[Path, str]) -> None:
    root, digest = clips
    cache = tmp_path / "cache"
    command = extraction(root, cache, "--engine", "here", "--shards", 2)
    with subprocess.Popen(command, env=environment(), start_new_session=True, stderr=subprocess.PIPE) as driver:
        while driver.poll() is None and not list(cache.glob(f"{ENGINE_FOLDER}/*/*/*/*/part-*.h5")):
            time.sleep(0.01)
        os.killpg(driver.pid, signal.SIGINT)
        _, err = driver.communicate(timeout=60)
    assert driver.returncode == 1 and b"Aborted!" in err and b"Traceback" not in err, err.decode()
    assert not processes_of(driver.pid)
    result = extract(root, cache, "--engine", "here", "--shards", 3, "--json")  # another cut reuses the rows, too
    assert json.loads(result.stdout)["outcomes"][0]["cached"] >= 1 and store_in(cache).digest() == digest
    assert [path.name for path in cache.iterdir()] == ["clips"]


def test_command_runs_on_the_local_engine(tmp_path: Path, clips: tuple[Path, str]) -> None:
    root, digest = clips
    result = extract(root, tmp_path / "cache", "--engine", "here", "--shards", 2, "--json")
    assert result.exit_code == 3, result.output
    assert json.loads(result.stdout)["outcomes"][0]["rows"] == 10 and store_in(tmp_path / "cache").digest() == digest
    assert extract(root, tmp_path / "cache", "--engine", "here", "--shard", "1/2").exit_code == 2
