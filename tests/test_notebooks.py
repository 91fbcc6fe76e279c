"""The notebooks: each runs top to bottom on drawn clips, and its committed outputs are small and of the same kinds."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import actionvit as av

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
NOTEBOOKS = ("from-clips-to-report", "cache-from-python", "reading-runs")
FILES = {
    "from-clips-to-report": (
        "report/report.html",
        "report/report.tex",
        "runs/tiny-hr-linear-balanced-grouped/run.json",
    ),
    "cache-from-python": (),
    "reading-runs": ("recall.pdf", "comparison/report.json"),
}


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(EXPERIMENTS / f"{name}.ipynb", as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(notebook: nbformat.NotebookNode) -> list[set[str]]:
    """Return the kinds of output of every code cell; a stream may arrive in several messages."""
    return [{output.get("name", output.output_type) for output in cell.outputs} for cell in code_cells(notebook)]


@pytest.fixture
def folder(sixty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working directory with the drawn clips; kernels started in the test import the code under test."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "actionvit").symlink_to(Path(av.__file__).resolve().parent)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    for name in ("ROOT", "CACHE", "RUNS"):
        monkeypatch.delenv(f"ACTIONVIT_{name}", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    work = tmp_path / "work"
    work.mkdir()
    shutil.copytree(sixty, work / "clips")
    return work


@pytest.mark.parametrize("name", NOTEBOOKS)
@pytest.mark.filterwarnings("default")  # of Jupyter's own packages
def test_a_notebook_runs_top_to_bottom(name: str, folder: Path) -> None:
    committed, executed = read(name), read(name)
    for cell in code_cells(executed):
        cell.outputs = []
    where = nbformat.v4.new_code_cell("import actionvit\nprint(actionvit.__file__)")
    executed.cells.append(where)
    client = NotebookClient(executed, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute()
    assert Path(executed.cells.pop().outputs[0].text.strip()).resolve() == Path(av.__file__).resolve()
    assert kinds(executed) == kinds(committed)
    assert not any("stderr" in kind for kind in kinds(executed))
    for file in FILES[name]:
        assert (folder / file).stat().st_size > 0


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_committed_outputs_are_complete_and_small(name: str) -> None:
    text = (EXPERIMENTS / f"{name}.ipynb").read_text(encoding="utf-8")
    assert len(text) < 100_000
    assert len(re.findall(r'"image/png"', text)) <= 1
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users|content)/", text)
    cells = code_cells(read(name))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_first_cell_installs_only_what_is_missing(name: str) -> None:
    source = code_cells(read(name))[0].source
    assert re.search(r'^PACKAGE = "git\+https://', source)
    (attempt,) = [node for node in ast.parse(re.sub(r"%pip.*", "pass", source)).body if isinstance(node, ast.Try)]
    assert [ast.unparse(line) for line in attempt.body] == ["import actionvit as av"]
    assert "%pip install" in source.split("except ImportError:")[1]
