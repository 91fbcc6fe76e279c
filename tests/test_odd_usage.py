"""Odd invocations end with one line and the exit code of wrong usage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import actionvit as av
from actionvit.cli import main
from actionvit.errors import SettingError
from actionvit.pipeline.datasets.synthetic.dataset import write_avi

pytestmark = pytest.mark.usefixtures("own_logging")

WRONG = (
    (
        ("probe", "data", "--variant", ""),
        "Invalid value for '--variant': got '', expected a word, or several such as A,B",
    ),
    (("probe", "data", "--run-name", ""), "--run-name: got '', expected a name; --runs sets the folder"),
    (("probe", "data", "--run-name", "a/b"), "--run-name: got 'a/b', expected a name; --runs sets the folder"),
    (("finetune", "data", "--run-name", "../b"), "--run-name: got '../b', expected a name; --runs sets the folder"),
    (("finetune", "data", "--run-name", ".."), "--run-name: got '..', expected a name; --runs sets the folder"),
    (
        ("extract", "data", "--variant", "tiny", "--weights", "tiny=a", "--weights", "b"),
        "--weights b: tiny has the weights a already; give one",
    ),
    (
        ("extract", "data", "--encoder", "no/such/folder"),
        "weights no/such/folder: no such folder; give a local folder or a hub id, OWNER/NAME",
    ),
    (("extract", "data", "--shard", "auto"), "--shard: got auto, but no scheduler's variable is set"),
    (
        ("sweep", "data", "--size", "15"),
        "got '15', expected numbers of at least 16 and at most 1,000,000, such as 16,32",
    ),
    (("attention", "absent.mp4", "--variant", "tiny"), "Path 'absent.mp4' does not exist."),
    (
        ("data", "check", "data", "--format", "kinetics"),
        "no kinetics lists in `data`; put them there or choose another --format",
    ),
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a dataset `data`."""
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        path = tmp_path / "data" / ("clap", "run")[number % 2] / f"{number}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_avi(path, np.full((8, 36, 48, 3), 40 * number, np.uint8))
    return tmp_path


@pytest.mark.parametrize(("arguments", "error"), WRONG, ids=[" ".join(arguments) for arguments, _ in WRONG])
def test_wrong_usage_is_one_line_and_code_2(
    arguments: tuple[str, ...], error: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    errors = capsys.readouterr().err
    assert ended.value.code == 2, errors
    (line,) = [line for line in errors.splitlines() if line.lower().startswith("error: ")]
    assert error in line


@pytest.mark.parametrize("function", [av.probe, av.finetune])
def test_functions_refuse_a_path_as_the_name_of_a_run(function: type, place: Path) -> None:
    with pytest.raises(SettingError, match="run_name: got 'a/b', expected a name; runs= sets the folder"):
        function(av.load_dataset("data"), "tiny", run_name="a/b")
