"""Failing system calls in whole commands: one line, nothing lost, the same content after running again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_store import environment

SUPPORT = Path(__file__).parent / "support"


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "count",
    [
        pytest.param(300, id="300 faults"),
        pytest.param(0, id="every call", marks=[pytest.mark.slow, pytest.mark.timeout(86400)]),
    ],
)
def test_failing_system_calls_cost_one_line_and_no_data(in_memory: Path, count: int) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and a C compiler for the fault injector")
    library = in_memory / "injector.so"
    build = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SUPPORT / "fault_injector.c"), "-ldl"]
    subprocess.run(build, check=True)
    command = [sys.executable, str(SUPPORT / "fault_harness.py"), str(in_memory / "work"), str(library), str(count)]
    (in_memory / "work").mkdir()
    done = subprocess.run(
        command, env=environment(LD_PRELOAD=str(library)), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["violations"] == []
    assert result["injections"] >= count and result["ended"] > 0


@pytest.mark.slow
@pytest.mark.timeout(86400)
def test_killed_commands_are_completed_by_running_again(in_memory: Path) -> None:
    """The environment variable `ACTIONVIT_TEST_KILLS` sets another number of kills than 50."""
    count = int(os.environ.get("ACTIONVIT_TEST_KILLS", "50"))
    (in_memory / "work").mkdir()
    command = [sys.executable, str(SUPPORT / "kill_commands.py"), str(in_memory / "work"), str(count), "1"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["violations"] == []
    assert result["kills"] == count and len(result["by_command"]) == 7
