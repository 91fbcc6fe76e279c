"""Extraction on a Ray cluster of fake nodes: a lost node, a killed driver, Ctrl-C, users' errors. Needs Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_store import environment
from small_extraction import draw, extract, extraction, store_in

from actionvit.pipeline.extraction.driver import ENGINE_FOLDER

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CLUSTER = """
import sys
from ray.cluster_utils import Cluster

local = {"node_ip_address": "127.0.0.1"}
cluster = Cluster(initialize_head=True, head_node_args={**local, "num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1, **local) for _ in range(2)]
cluster.wait_for_nodes()
print(cluster.address, flush=True)
for line in sys.stdin:
    if line.strip() == "kill":
        cluster.remove_node(nodes.pop(), allow_graceful=False)
    else:
        nodes.append(cluster.add_node(num_cpus=1, **local))
    print("done", flush=True)
cluster.shutdown()
"""
"""A head and two nodes of one CPU each; `kill` on standard input kills a node, `add` adds one."""


class Cluster:
    """The script above, and the processes that belong to it."""

    def __init__(self, mark: str) -> None:
        self.mark = mark
        # Without this, Ray replaces 127.0.0.1 by the machine's address, which need not be reachable.
        self.environment = environment(ACTIONVIT_TEST=mark, RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0", OMP_NUM_THREADS="1")
        command = [sys.executable, "-c", CLUSTER]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, env=self.environment, text=True, **pipes)
        self.address = self.process.stdout.readline().strip()
        assert self.address, "the cluster did not start"

    def send(self, line: str) -> None:
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def processes(self, *words: str) -> list[str]:
        """Command lines of this test's processes that contain one of some words."""
        commands = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"ACTIONVIT_TEST={self.mark}\0" in (folder / "environ").read_text(errors="replace"):
                    commands.append((folder / "cmdline").read_text(errors="replace").replace("\0", " "))
            except OSError:
                continue
        return [command for command in commands if any(word in command for word in words)]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(60)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'actionvit[ray]'")
    cluster = Cluster(str(tmp_path_factory.mktemp("mark")))
    yield cluster
    cluster.close()
    assert eventually(lambda: not cluster.processes("")), cluster.processes("")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Clips, one of them broken, and the digest of their store when one process makes it."""
    folder = tmp_path_factory.mktemp("ray")
    root = draw(folder / "clips", 48)
    (root / "hop" / "broken.avi").write_bytes(b"no video")
    assert extract(root, folder / "cache").exit_code == 3
    return root, store_in(folder / "cache").digest()


def eventually(condition: Callable[[], object], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def start(cluster: Cluster, root: Path, cache: Path, *more: object) -> subprocess.Popen[str]:
    options = ("--engine", "ray", "--address", cluster.address, "--shards", 8, "--json", *more)
    return subprocess.Popen(
        extraction(root, cache, *options), env=cluster.environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def parts(cache: Path) -> list[Path]:
    return list(cache.glob(f"{ENGINE_FOLDER}/*/*/*/*/part-*.h5"))


def assert_as_one_process(cache: Path, digest: str) -> None:
    assert store_in(cache).digest() == digest
    assert [failure.id for failure in store_in(cache).failures()] == ["hop/broken.avi"]
    assert [path.name for path in cache.iterdir()] == ["clips"] and len(list(cache.glob("*/*"))) == 1
    assert not list(cache.rglob(".tmp-*"))


def test_lost_node_changes_nothing(tmp_path: Path, cluster: Cluster, clips: tuple[Path, str]) -> None:
    root, digest = clips
    driver = start(cluster, root, tmp_path / "cache")
    assert eventually(lambda: parts(tmp_path / "cache"), 120)
    cluster.send("kill")
    out, err = driver.communicate(timeout=200)
    cluster.send("add")
    assert driver.returncode == 3, err
    assert_as_one_process(tmp_path / "cache", digest)
    lost = json.loads(out)["lost"]
    assert lost and all(line.startswith("shard ") and f" of 8 on {os.uname().nodename}: " in line for line in lost)
    assert all(f"lost {line}" in err for line in lost), err
    assert json.loads(out)["outcomes"][0]["embedded"] == 48


def test_killed_driver_goes_on_when_started_again(tmp_path: Path, cluster: Cluster, clips: tuple[Path, str]) -> None:
    root, digest = clips
    driver = start(cluster, root, tmp_path / "cache")
    assert eventually(lambda: parts(tmp_path / "cache"), 120)
    driver.kill()
    driver.communicate()
    assert eventually(lambda: not cluster.processes("ray::run_attempt", "actionvit.features.decoding"))
    rows = len(parts(tmp_path / "cache"))
    out, err = start(cluster, root, tmp_path / "cache").communicate(timeout=200)
    outcome = json.loads(out)["outcomes"][0]
    assert outcome["cached"] >= rows >= 1 and outcome["cached"] + outcome["embedded"] == 48, err
    assert_as_one_process(tmp_path / "cache", digest)


def test_interrupt_leaves_no_task_and_usable_rows(tmp_path: Path, cluster: Cluster, clips: tuple[Path, str]) -> None:
    root, digest = clips
    driver = start(cluster, root, tmp_path / "cache")
    assert eventually(lambda: parts(tmp_path / "cache"), 120)
    os.killpg(driver.pid, signal.SIGINT)
    _, err = driver.communicate(timeout=60)
    assert driver.returncode == 1 and "Aborted!" in err and "Traceback" not in err, err
    assert eventually(lambda: not cluster.processes("ray::run_attempt", "actionvit.features.decoding"))
    assert start(cluster, root, tmp_path / "cache").communicate(timeout=200)
    assert_as_one_process(tmp_path / "cache", digest)


USERS_ERROR = """
import sys
from dataclasses import replace
from pathlib import Path
from actionvit.errors import ActionVitError
from actionvit.pipeline.datasets import load_dataset
from actionvit.pipeline.extraction.driver import extract_on
from actionvit.pipeline.extraction.engines import RayEngine
from actionvit.pipeline.extraction.job import Job
from actionvit.features.sampling import ClipSpec
from actionvit.features.timesformer.checkpoint import find_weights

root, cache, address = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
weights = replace(find_weights("tiny"), file=root.parent / "gone.safetensors")
job = Job(variant="tiny", weights=weights, spec=ClipSpec(num_frames=2, size=32))
try:
    extract_on(RayEngine(address, cpus=1, gpus=0), load_dataset(root), [job], cache=cache, shards=1, workers=1)
except ActionVitError as error:
    print(error)
"""


def test_users_error_is_one_line_and_not_retried(tmp_path: Path, cluster: Cluster, clips: tuple[Path, str]) -> None:
    root, _ = clips
    command = [sys.executable, "-c", USERS_ERROR, str(root), str(tmp_path / "cache"), cluster.address]
    out = subprocess.run(command, env=cluster.environment, text=True, capture_output=True, timeout=120).stdout
    assert out.startswith(f"on {os.uname().nodename}: ") and "gone.safetensors" in out and out.count("\n") == 1, out
    assert len(list((tmp_path / "cache" / ENGINE_FOLDER).glob("*/1-of-1.try-*"))) == 1
    assert not parts(tmp_path / "cache")
