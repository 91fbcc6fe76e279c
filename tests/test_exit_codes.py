"""Exit codes of the command line: 2 for a wrong setting, 1 for a missing or damaged input."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import actionvit as av
from actionvit import cli

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.usefixtures("own_logging")


@pytest.fixture(scope="module")
def cached(sixty: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with embeddings of the drawn clips, under `cache`."""
    folder = tmp_path_factory.mktemp("exit")
    av.extract(av.load_dataset(sixty), "tiny", cache=folder / "cache", num_frames=2, size=32, workers=0, device="cpu")
    return folder


def exit_code(arguments: list[str]) -> int:
    """Run the command line in this process."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


WRONG = [
    (["probe", "--protocol", "grouped", "--folds", "99"], "39 sources cannot make 99 folds"),
    (["sweep", "--protocol", "grouped", "--folds", "99"], "39 sources cannot make 99 folds"),
    (["experiment splits", "--protocol", "grouped", "--folds", "99"], "39 sources cannot make 99 folds"),
    (["probe", "--store", "foo"], "no store 'foo'"),
    (["experiment heads", "--store", "foo"], "no store 'foo'"),
    (["probe", "--splits-dir", "nowhere"], "cannot read `nowhere`"),
    (["probe", "--head", "mlp", "--device", "cuda:7"], "device cuda"),
    (["extract", "--device", "cuda:99"], "device cuda"),
    (["extract", "--weights", "nowhere"], "weights nowhere: no such folder or file"),
    (["probe", "--head", "knn", "--grid", "k=-1"], "--grid: head knn: k, temperature: got -1"),
    (["probe", "--grid", "C=-1"], "--grid: head linear: C: got -1.0, expected more than 0"),
    (["extract", "--save-layers", "99"], "--save-layers: got 99, expected 1 to 4"),
    (["extract", "--save-tokens-after", "99"], "--save-tokens-after: got 99, expected 0 to 3"),
    (["probe", "--head", "knn", "--focal-gamma", "1"], "--focal-gamma: got 1.0"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(arguments) for arguments, _ in WRONG])
def test_wrong_setting_exits_with_code_two(
    sixty: Path, cached: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    command, *options = arguments
    where = [] if "--weights" in options else ["--variant", "tiny"]
    code = exit_code([*command.split(), str(sixty), *where, *options, "--cache", str(cached / "cache")])
    written = capsys.readouterr().err
    assert code == 2 and message in written, written
    assert "Traceback" not in written and sum(line.startswith("error: ") for line in written.splitlines()) == 1


def test_missing_input_exits_with_code_one(sixty: Path, cached: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["probe", str(cached / "absent"), "--cache", str(cached / "cache")]) == 1
    assert exit_code(["probe", str(sixty), "--variant", "tiny", "--cache", str(cached / "absent")]) == 1
    assert "run `actionvit extract" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["actionvit.cli", "click", "actionvit.commands.probe"])
def test_interrupt_during_imports_is_quiet(module: str) -> None:
    code = (
        "import os, runpy, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv = ['actionvit', 'probe', '--help']\n"
        "runpy.run_module('actionvit', run_name='__main__', alter_sys=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "\nAborted!\n")


def test_messages_that_begin_with_a_setting_are_setting_errors() -> None:
    options = {
        option.lstrip("-").replace("-", "_")
        for page in (ROOT / "docs" / "reference").glob("command-line.md")
        for option in re.findall(r"--[a-z][a-z-]*", page.read_text(encoding="utf-8"))
    }
    others = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for package in ("features", "heads", "evaluation", "pipeline")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "ActionVitError" and node.args
        if (match := re.match(r"f?['\"]([a-z_]+)(: got|=)", ast.unparse(node.args[0]))) and match[1] in options
    ]
    assert not others
