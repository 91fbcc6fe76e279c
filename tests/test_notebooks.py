"""The notebooks: each runs top to bottom on drawn clips, and its committed outputs are small and of the same kinds."""

from __future__ import annotations

import io
import re
import shutil
import sys
import warnings
import zipfile
from pathlib import Path

import av as av_container
import nbformat
import pytest
from click.testing import CliRunner
from loopback_hub import running_hub
from nbclient import NotebookClient
from transformers_reference import SMALL, reference

import actionvit as av
from actionvit.cli import cli

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


def working_directory(clips: Path, parent: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the drawn clips; kernels started in the test import the code under test."""
    (parent / "path").mkdir()
    (parent / "path" / "actionvit").symlink_to(Path(av.__file__).resolve().parent)
    monkeypatch.setenv("PYTHONPATH", str(parent / "path"))
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(parent / name.lower()))
    for name in ("ROOT", "CACHE", "RUNS"):
        monkeypatch.delenv(f"ACTIONVIT_{name}", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    work = parent / "work"
    work.mkdir()
    shutil.copytree(clips, work / "clips")
    return work


@pytest.fixture
def folder(sixty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return working_directory(sixty, tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def executed(sixty: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, nbformat.NotebookNode]]:
    """Return a folder and the notebooks as executed in it, one after another in one kernel that imports once.

    Each notebook starts without the names of those before it.
    """
    with pytest.MonkeyPatch.context() as patch:
        folder = working_directory(sixty, tmp_path_factory.mktemp("notebooks"), patch)
        notebooks = {name: read(name) for name in NOTEBOOKS}
        together = nbformat.v4.new_notebook()
        for notebook in notebooks.values():
            for cell in code_cells(notebook):
                cell.outputs = []
            together.cells += [nbformat.v4.new_code_cell("%reset -f"), *notebook.cells]
        where = nbformat.v4.new_code_cell("import actionvit\nprint(actionvit.__file__)")
        together.cells.append(where)
        place = {"metadata": {"path": str(folder)}}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Jupyter's own packages
            NotebookClient(together, timeout=240, kernel_name="python3", allow_errors=True, resources=place).execute()
    assert Path(where.outputs[0].text.strip()).resolve() == Path(av.__file__).resolve()
    return folder, notebooks


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_top_to_bottom(name: str, executed: tuple[Path, dict[str, nbformat.NotebookNode]]) -> None:
    folder, notebooks = executed
    failures = [output for cell in code_cells(notebooks[name]) for output in cell.outputs if "ename" in output]
    assert not failures
    assert kinds(notebooks[name]) == kinds(read(name))
    assert not any("stderr" in kind for kind in kinds(notebooks[name]))
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
def test_the_first_cell_installs_a_wheel_or_the_release(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where actionvit cannot be imported: `%pip` is replaced by a record of its argument."""
    source = code_cells(read(name))[0].source
    assert "OWNER" not in source
    installed: list[str] = []
    code = re.sub(r"%pip install -q \{(\w+)\}", r"installed.append(\1); break_import.undo()", source)
    monkeypatch.chdir(tmp_path)
    for wheels, expected in (((), "actionvit"), (("0.1.0", "0.2.0"), "actionvit-0.2.0-py3-none-any.whl")):
        for version in wheels:
            (tmp_path / f"actionvit-{version}-py3-none-any.whl").touch()
        with pytest.MonkeyPatch.context() as break_import:
            break_import.setitem(sys.modules, "actionvit", None)
            exec(code, {"installed": installed, "break_import": break_import})
        assert installed.pop() == expected and not installed


def write_hmdb_simp(clips: Path, archive: Path) -> None:
    """Write the archive of HMDB_simp for three classes: `HMDB_simp/CLASS/CLIP/N.jpg` below one folder."""
    with zipfile.ZipFile(archive, "w") as out:
        for label in sorted(path for path in clips.iterdir() if path.is_dir() and any(path.glob("*.avi")))[:3]:
            for clip in sorted(label.glob("*.avi")):
                with av_container.open(str(clip)) as container:
                    for number, frame in enumerate(container.decode(video=0), start=1):
                        jpeg = io.BytesIO()
                        frame.to_image().save(jpeg, "JPEG")
                        out.writestr(f"HMDB_simp/{label.name}/{clip.stem}/{number}.jpg", jpeg.getvalue())


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_first_notebook_runs_on_hmdb_simp(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `DRAWN = False`: the fetched archive, and narrow models under the names of `base` and `hr` on a hub here."""
    write_hmdb_simp(folder / "clips", folder / "archive.zip")
    fetch = ["data", "fetch", "hmdb_simp", "--from", folder / "archive.zip", "-o", folder / "HMDB_simp"]
    result = CliRunner().invoke(cli, list(map(str, fetch)))
    assert result.exit_code == 0, (result.output, result.exception)
    notebook = read("from-clips-to-report")
    (switch,) = [cell for cell in code_cells(notebook) if cell.source.startswith("DRAWN = True")]
    switch.source = switch.source.replace("DRAWN = True", "DRAWN = False")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with running_hub() as hub:
        for name, frames, size in (("base", 8, 224), ("hr", 16, 448)):
            model = tmp_path / name
            reference(model, **SMALL, num_frames=frames, image_size=size)
            files = {path.name: path.read_bytes() for path in model.iterdir()}
            hub.repositories[f"facebook/timesformer-{name}-finetuned-k400"] = files
        for variable, value in {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub"), "NO_PROXY": "*"}.items():
            monkeypatch.setenv(variable, value)
        where = {"metadata": {"path": str(folder)}}
        NotebookClient(notebook, timeout=280, kernel_name="python3", resources=where).execute()
    assert (folder / "report" / "report.html").stat().st_size > 0
    assert {path.name for path in (folder / "runs").iterdir()} == {
        *("base-linear-grouped", "base-linear-balanced-grouped", "hr-linear-grouped", "hr-linear-balanced-grouped")
    }
