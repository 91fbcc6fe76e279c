"""Fine-tuning under faults: lost and stopped ranks, a second training, damaged files, folders that are not writable."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from click.testing import CliRunner
from forked_commands import ForkedCommands
from safetensors.numpy import load_file
from tiny_model import command

from actionvit.cli import cli
from actionvit.errors import ActionVitError
from actionvit.features.store.locks import locked
from actionvit.features.timesformer.checkpoint import Weights
from actionvit.pipeline.datasets import Dataset
from actionvit.pipeline.finetuning.checkpoints import load_checkpoint
from actionvit.pipeline.runs import read_run


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_model.write_clips(tmp_path_factory.mktemp("clips") / "drawn")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return tiny_model.weights(tmp_path_factory.mktemp("weights"))


def rank_environment(port: str) -> dict[str, str]:
    """Return the variables that two ranks share."""
    return {
        **os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip


def start_rank(rank: str, port: str, *script: str) -> subprocess.Popen[str]:
    support = str(Path(__file__).parent / "support")
    return subprocess.Popen(
        [sys.executable, *script],
        env={**rank_environment(port), "RANK": rank, "LOCAL_RANK": rank, "PYTHONPATH": support},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def wait_for(path: Path, processes: list[subprocess.Popen[str]]) -> None:
    end = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < end and all(process.poll() is None for process in processes)
        time.sleep(0.02)


STEPS = ("--train", "all", "--head-init", "zero", "--epochs", "4")


@pytest.fixture(scope="module")
def undisturbed(dataset: Dataset, weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The head of an undisturbed training by one process."""
    folder = tmp_path_factory.mktemp("whole")
    result = CliRunner().invoke(cli, command(dataset, weights, folder, *STEPS))
    assert result.exit_code == 0, result.output
    return folder / "runs" / "run" / "head.safetensors"


# That a stopped rank is noticed is also tested, without a training, by the test of ranks that wait for rank 0.
@pytest.mark.parametrize("fault", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)])
def test_a_lost_rank_ends_the_others_with_one_line(
    forked: ForkedCommands,
    dataset: Dataset,
    weights: Weights,
    undisturbed: Path,
    tmp_path: Path,
    fault: signal.Signals,
) -> None:
    arguments = command(dataset, weights, tmp_path, *STEPS, "--rank-timeout", "6")
    environment = rank_environment(free_port())
    first, second = (forked.start(arguments, {**environment, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01")
    try:
        wait_for(tmp_path / "runs" / "run.training" / "grouped-1" / "checkpoint.safetensors", [])
        os.kill(second, fault)
        ended = forked.wait(first)
        assert ended.returncode == 1
        assert "Traceback" not in ended.stderr and ended.stderr.splitlines()[-1].startswith(
            "error: another process of this training"
        )
    finally:
        os.kill(second, signal.SIGKILL)
        forked.wait(second)
    alone = CliRunner().invoke(cli, [*command(dataset, weights, tmp_path, *STEPS), "--resume"])
    assert alone.exit_code == 0, alone.output
    one, other = load_file(tmp_path / "runs" / "run" / "head.safetensors"), load_file(undisturbed)
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, atol=1e-4)


def rank_processes(folder: Path, rank: str) -> list[int]:
    """Ids of the running processes with a rank of a training whose files lie in a folder."""
    ids = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = (process / "environ").read_text(errors="replace").split("\0")
            is_rank = f"RANK={rank}" in variables and "TORCHELASTIC_RUN_ID=test" in variables
            if is_rank and str(folder) in (process / "cmdline").read_text(errors="replace"):
                ids.append(int(process.name))
    return ids


@pytest.mark.slow
def test_rank_killed_under_torchrun_on_two_nodes_can_resume(dataset: Dataset, weights: Weights, tmp_path: Path) -> None:
    how = ["--train", "all", "--head-init", "zero", "--epochs", "6", "--rank-timeout", "20"]

    def start_nodes(*more: str) -> list[subprocess.Popen[str]]:
        agent = [
            sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
            "--rdzv-id", "test", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}",
            "--local-addr", "127.0.0.1",
            "-m", "--", "actionvit", *command(dataset, weights, tmp_path, *how), *more,
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return [
            subprocess.Popen(agent, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for _ in range(2)
        ]

    nodes = start_nodes()
    wait_for(tmp_path / "runs" / "run.training" / "grouped-1" / "checkpoint.safetensors", nodes)
    (victim,) = rank_processes(tmp_path, "1")
    os.kill(victim, signal.SIGKILL)
    errors = [node.communicate(timeout=120)[1] for node in nodes]
    assert all(node.returncode == 1 for node in nodes), errors
    lines = [line for error in errors for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and lines[0].startswith("error: another process of this training"), errors
    assert not rank_processes(tmp_path, "0")
    nodes = start_nodes("--resume")
    errors = [node.communicate(timeout=240)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], errors
    assert read_run(tmp_path / "runs" / "run")


def test_ranks_wait_for_rank_0_but_not_for_a_stopped_rank(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from actionvit.cli import main\n"
        "from actionvit.errors import ActionVitError\n"
        "from actionvit.pipeline.finetuning.distributed import init_distributed\n"
        "with init_distributed('cpu', timeout=3) as group:\n"
        "    group.on_main(lambda: time.sleep(4.5))\n"
        "    print('waited', flush=True)\n"
        "    try:\n"
        "        group.on_main(lambda: time.sleep(60))\n"
        "    except ActionVitError as error:\n"
        "        sys.exit(str(error))\n"
    )
    port = free_port()
    processes = [start_rank(rank, port, "-c", script) for rank in "01"]
    try:
        assert processes[1].stdout and processes[1].stdout.readline() == "waited\n"
        processes[0].send_signal(signal.SIGSTOP)
        _, stderr = processes[1].communicate(timeout=30)
        assert processes[1].returncode == 1 and "does not answer" in stderr
    finally:
        processes[0].kill()
        processes[0].communicate()


def test_a_second_training_of_one_name_is_refused(dataset: Dataset, weights: Weights, tmp_path: Path) -> None:
    work = tmp_path / "runs" / "run.training"
    work.mkdir(parents=True)
    for more in ((), ("--restart",)):
        with locked(work):
            result = CliRunner().invoke(cli, command(dataset, weights, tmp_path, *more))
        assert isinstance(result.exception, ActionVitError)
        assert f"process {os.getpid()} on {socket.gethostname()} is training under this run name" in str(
            result.exception
        )
    assert not (tmp_path / "cache").exists()


def test_early_checks_come_before_weights_and_training(dataset: Dataset, weights: Weights, tmp_path: Path) -> None:
    arguments = command(dataset, weights, tmp_path)
    arguments[arguments.index("--weights") + 1] = str(tmp_path / "no-weights")
    (tmp_path / "runs").write_text("a file where the folder of runs should be")
    result = CliRunner().invoke(cli, arguments)
    assert isinstance(result.exception, ActionVitError) and str(tmp_path / "runs") in str(result.exception)
    arguments[1] = str(tmp_path / "no-dataset")
    assert "no-dataset" in str(CliRunner().invoke(cli, arguments).exception)
    (tmp_path / "runs").unlink()
    arguments[1] = str(dataset.root)
    assert "no-weights" in str(CliRunner().invoke(cli, arguments).exception)
    assert not (tmp_path / "cache").exists() and not list((tmp_path / "runs").iterdir())


def flip_bit(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(data)


def test_a_flipped_bit_in_a_run_or_checkpoint_is_noticed(dataset: Dataset, weights: Weights, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, command(dataset, weights, tmp_path, "--train", "head", "--epochs", "1"))
    assert result.exit_code == 0, result.output
    run = read_run(tmp_path / "runs" / "run")
    run.head()
    flip_bit(run.folder / "head.safetensors", -7)
    with pytest.raises(ActionVitError, match=r"cannot be read \(its tensors do not match their digest"):
        run.head()
    predicted = CliRunner().invoke(cli, ["predict", str(dataset.videos[0].path), "--run", str(run.folder)])
    assert isinstance(predicted.exception, ActionVitError)

    place = tmp_path / "checkpoint"
    tiny_model.save_some_checkpoint(place)
    assert load_checkpoint(place) is not None
    flip_bit(place / "checkpoint.safetensors", -7)
    with pytest.raises(ActionVitError, match="does not match its digest"):
        load_checkpoint(place)
