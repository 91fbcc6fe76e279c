"""`actionvit demo` as a user runs it: in an empty folder, twice, offline; and the commands of the docs after it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from actionvit.cli import cli
from actionvit.commands.demo import how_to_call
from actionvit.pipeline.datasets.synthetic.dataset import plan_clips

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("tutorial.md", "how-to/read-the-cache.md", "how-to/export-and-predict.md", "how-to/compare-runs.md")
"""In an order in which they can run one after another; the last one sweeps, so that there are several stores."""
WITHOUT = ("parquet", "--push")
"""Words of commands that need more than a plain installation."""
QUICKER = {"experiment": ("--seeds", "1")}
"""Options added to commands, so that they compute the same table from fewer repetitions."""

SMALL = """
import sys
from actionvit.commands import demo
steps = demo._steps
demo._steps = lambda out: (
    step._replace(arguments=(*step.arguments, "--count", "60")) if step.arguments[:2] == ("data", "draw") else step
    for step in steps(out)
)
demo.command.main(sys.argv[1:], prog_name="actionvit demo")
"""
"""The demo with the fewest clips that `data draw` draws; everything else is as a user has it."""


def demo(
    folder: Path, *arguments: str, script: tuple[str, ...] = ("-m", "actionvit", "demo")
) -> subprocess.CompletedProcess[str]:
    # No proxy and no name server answers: every network request fails.
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "https_proxy": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
    }
    command = [sys.executable, *script, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


FULL = pytest.param(130, marks=pytest.mark.slow, id="all clips")
"""`make demo` as it is; by default its tests run with fewer clips, and the test of the docs runs the same commands."""


def timed_demo(folder, clips):
    """Run the demo; return its folder, its output, its seconds and its number of clips."""
    start = time.monotonic()
    done = demo(folder) if clips == 130 else demo(folder, script=("-c", SMALL))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout, time.monotonic() - start, len(plan_clips(clips=clips))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return timed_demo(tmp_path_factory.mktemp("demo"), 60)


@pytest.fixture(scope="module", params=[pytest.param(60, id="60 clips"), FULL])
def first(request, tmp_path_factory):
    if request.param == 60:
        return request.getfixturevalue("small")
    return timed_demo(tmp_path_factory.mktemp("demo"), request.param)


def test_it_is_done_in_two_minutes_and_says_what_it_did(first):
    _, output, seconds, clips = first
    assert seconds < 120
    assert f"{clips} clips drawn" in output
    assert "trained only on synthetic clips like these" in output
    commands = re.findall(r"^\$ (actionvit .+)$", output, re.MULTILINE)
    assert [shlex.split(line)[1] for line in commands] == ["data", "extract", "probe", "probe", "report"]


def test_the_report_lies_where_it_says(first):
    _, output, *_ = first
    report = Path(re.findall(r"^The report: (.+)$", output, re.MULTILINE)[0])
    page = report.read_text(encoding="utf-8")
    assert "tiny-hr" in page and "move_right" in page


def test_its_last_line_says_how_to_call_the_command(first, monkeypatch):
    _, output, *_ = first
    own = Path(sys.executable).absolute().parent
    monkeypatch.setenv("PATH", f"{own}{os.pathsep}{os.environ['PATH']}")
    assert how_to_call() is None, "the shell finds it"
    monkeypatch.setenv("PATH", "/nowhere")
    line = how_to_call()
    assert line is not None and line.startswith("To call actionvit yourself: ")
    command = shlex.split(line.removeprefix("To call actionvit yourself: ").partition(", or")[0])
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "actionvit" in done.stdout
    assert output.splitlines()[-1].startswith(("The report: ", "To call actionvit yourself: "))


def test_both_variants_with_and_without_weights_have_metrics(first):
    folder, *_ = first
    runs = sorted((folder / "actionvit-demo" / "runs").iterdir())
    assert [run.name for run in runs] == [
        "tiny-hr-linear",
        "tiny-hr-linear-balanced",
        "tiny-linear",
        "tiny-linear-balanced",
    ]
    for run in runs:
        metrics = json.loads((run / "metrics.json").read_text())
        assert [split["name"] for split in metrics["splits"]] == ["official-1", "official-2", "official-3"]
        assert 0 < metrics["summary"]["top1"]["mean"] < 1


@pytest.mark.slow
def test_a_second_demo_keeps_clips_and_cache(first):
    folder, _, _, clips = first
    kept = [*folder.glob("actionvit-demo/clips/*/*.avi"), *folder.glob("actionvit-demo/features-cache/**/*.h5")]
    before = {file: file.stat().st_mtime_ns for file in kept}
    metrics = {file: file.read_bytes() for file in folder.glob("actionvit-demo/runs/*/metrics.json")}
    again = demo(folder) if clips == len(plan_clips()) else demo(folder, script=("-c", SMALL))
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"0 clips drawn, {clips} already there" in again.stdout
    assert again.stdout.count(f"{clips} already cached") == 2
    assert {file: file.stat().st_mtime_ns for file in kept} == before
    assert {file: file.read_bytes() for file in metrics} == metrics


def test_the_commands_it_prints_work_by_themselves(first):
    folder, output, *_ = first
    extract = re.findall(r"^\$ (actionvit extract .+)$", output, re.MULTILINE)[0]
    command = [sys.executable, "-m", *shlex.split(extract)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "already cached" in done.stdout, done.stderr


def test_a_step_that_fails_ends_it_in_one_line(tmp_path):
    (tmp_path / "out" / "clips").mkdir(parents=True)
    (tmp_path / "out" / "clips" / "mine.txt").touch()
    done = demo(tmp_path, "--output", "out")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: demo: step 1 ended with exit code 1")
    assert "holds other files" in done.stderr


def commands(page: Path) -> list[str]:
    """Return the commands that a page shows, as `actionvit …` at the start of an indented or fenced line."""
    return re.findall(r"^ *(?:\$ )?(actionvit [a-z].*)$", page.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.timeout(900)
def test_the_commands_of_the_docs_run_as_written(small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clips and embeddings are those of the demo: drawing and extracting them took most of the time."""
    for name in ("clips", "features-cache"):
        shutil.copytree(small[0] / "actionvit-demo" / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for name in ("ROOT", "CACHE", "RUNS"):
        monkeypatch.delenv(f"ACTIONVIT_{name}", raising=False)
    fence = re.search(r"## Quick start(.*?)## ", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert fence is not None
    lines = re.findall(r"^\$ (actionvit .*)$", fence[1], re.MULTILINE)
    lines += [line for name in PAGES for line in commands(ROOT / "docs" / name)]
    assert len(lines) > 15
    for line in dict.fromkeys(lines):
        if any(word in line for word in WITHOUT):
            continue
        stores = sorted(path.parent for path in tmp_path.glob("features-cache/clips/tiny-*/key.json"))
        words = [str(stores[0]) if word == "STORE" else word for word in shlex.split(line)[1:]]
        result = CliRunner().invoke(cli, [*words, *QUICKER.get(words[0], ())], input="n\n")
        assert result.exit_code == 0, f"{line}: {result.output}{result.exception!r}"
