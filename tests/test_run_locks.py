"""Two processes on one run name, and warnings of damaged stores in the JSON of commands."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_features import write_dataset, write_store
from fake_store import environment

from actionvit.cli import cli
from actionvit.errors import ActionVitError
from actionvit.features.store.parts import list_parts
from actionvit.features.store.writer import Writer
from actionvit.pipeline.datasets import Dataset
from actionvit.pipeline.run_folder import locked_run
from actionvit.pipeline.runs import read_run


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return write_dataset(tmp_path / "films", sources=4)


def arguments(dataset: Dataset, folder: Path, command: str = "probe") -> list[str]:
    places = ["--cache", str(folder / "cache"), "--runs", str(folder / "runs"), "--run-name", "r"]
    return [command, str(dataset.root), *places]


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "actionvit", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment(OMP_NUM_THREADS="1"), text=True, **pipes)


@pytest.mark.parametrize("second", ["probe", "finetune"])
def test_second_process_on_a_run_name_is_refused(dataset: Dataset, tmp_path: Path, second: str) -> None:
    write_store(tmp_path / "cache", dataset, "base")
    first = start(*arguments(dataset, tmp_path), "--seeds", "1")
    try:
        lock, end = tmp_path / "runs" / "r.training" / "lock", time.monotonic() + 60
        while not (lock.exists() and lock.read_text()):
            assert first.poll() is None and time.monotonic() < end
            time.sleep(0.005)
        first.send_signal(signal.SIGSTOP)
        other = start(*arguments(dataset, tmp_path, second))
        _, stderr = other.communicate(timeout=120)
        assert other.returncode == 1
        (line,) = [line for line in stderr.splitlines() if line.startswith("error: ")]
        assert f"process {first.pid} on {socket.gethostname()} is training under this run name" in line
        first.send_signal(signal.SIGCONT)
        _, stderr = first.communicate(timeout=120)
        assert first.returncode == 0, stderr
    finally:
        first.kill()
        first.communicate()
    assert read_run(tmp_path / "runs" / "r").metrics
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["r"]


def test_lock_of_a_killed_process_is_released_and_removed(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom actionvit.pipeline.run_folder import locked_run\n"
        "with locked_run(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "r")], env=environment(), check=False)
    assert (tmp_path / "r.training" / "lock").exists()
    with locked_run(tmp_path / "r"):
        pass
    assert not list(tmp_path.iterdir())


def test_waiting_processes_take_turns_on_a_run_name(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom actionvit.features.store import locks\n"
        "from actionvit.pipeline.run_folder import locked_run\nlocks.POLL_SECONDS = 0.0005\n"
        "folder, end, turns = Path(sys.argv[1]), time.monotonic() + 3, 0\n"
        "while time.monotonic() < end:\n"
        "    with locked_run(folder / 'r', wait=True):\n"
        "        (folder / 'held').touch(exist_ok=False)\n"
        "        (folder / 'held').unlink()\n"
        "    turns += 1\n"
        "print(turns)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(command, env=environment(), text=True, **pipes) for _ in range(3)]
    for process in processes:
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 0 and int(stdout) > 0, stderr
    assert not list(tmp_path.iterdir())


def test_file_in_place_of_the_lock_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.training").touch()
    with pytest.raises(ActionVitError, match="cannot be made: File exists"), locked_run(tmp_path / "r", wait=True):
        pass


def test_checkpoints_survive_a_released_lock(tmp_path: Path) -> None:
    with locked_run(tmp_path / "r"):
        (tmp_path / "r.training" / "grouped-1").mkdir()
    assert (tmp_path / "r.training" / "grouped-1").is_dir()


@pytest.mark.parametrize("flags", [(), ("-q",)])
def test_missing_parts_are_in_the_json_of_probe(dataset: Dataset, tmp_path: Path, flags: tuple[str, ...]) -> None:
    store = write_store(tmp_path / "cache", dataset, "base", skip=4)
    rows = list(store.iter_rows(store.ids[:2]))
    with Writer(store) as out:
        for row, video in zip(rows, dataset.videos[-2:], strict=True):
            out.append(replace(row, record=replace(row.record, id=video.id)))
    list_parts(store.folder)[-1].unlink()
    result = CliRunner().invoke(cli, [*arguments(dataset, tmp_path), "--seeds", "1", "--json", *flags])
    assert result.exit_code == 0, result.output
    (record,) = json.loads(result.stdout)
    assert any("part files, with 2 rows, are missing" in text for text in record["warnings"]), record["warnings"]
    assert any("4 videos have no base embedding" in text for text in record["warnings"])
