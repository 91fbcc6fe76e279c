"""The wheel: it contains every package, and runs with its dependencies only."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("api", "commands", "evaluation", "features", "heads", "pipeline")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel of the tracked files and unpack it, as an installation would."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        if not name.startswith(("tests/", "results/", "docs/", "benchmarks/")) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", folder, source]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("actionvit-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_setup_cfg_lists_every_package() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    folders = {path.parent.relative_to(ROOT) for name in FOLDERS for path in (ROOT / name).rglob("*.py")}
    packages = {"actionvit"} | {".".join(("actionvit", *folder.parts)) for folder in folders}
    assert set(config["options"]["packages"].split()) == packages


def test_the_wheel_runs_and_every_module_imports(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "actionvit", "demo", "--help"]
    shown = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert "synthetic clips" in shown
    code = (
        "import importlib, pathlib, actionvit\n"
        "root = pathlib.Path(actionvit.__file__).parent\n"
        f"assert root == pathlib.Path({str(installed / 'actionvit')!r}), root\n"
        "names = [p.relative_to(root.parent).with_suffix('').parts for p in sorted(root.rglob('*.py'))]\n"
        "for parts in names:\n"
        "    if parts[-1] not in ('__main__', '__init__', 'gpu_kernels'):\n"  # the kernels need triton
        "        importlib.import_module('.'.join(parts))\n"
        "print(len(names))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 150
