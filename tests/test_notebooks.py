"""The notebooks: each runs top to bottom on drawn clips, and its committed outputs are small and of the same kinds."""

from __future__ import annotations

import io
import re
import shutil
import sys
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
