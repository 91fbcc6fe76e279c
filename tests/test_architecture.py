"""The rules of the architecture page, checked against the imports in the sources."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOP = {"errors", "escape", "lazy", "settings", "text", "__init__"}
ALLOWED = {
    "features": {"features"} | TOP,
    "heads": {"heads"} | TOP,
    "evaluation": {"evaluation"} | TOP,
    "pipeline": {"features", "heads", "evaluation", "pipeline"} | TOP,
    "commands": {"features", "heads", "evaluation", "pipeline", "commands"} | TOP,
    "api": {"api", "features", "heads", "evaluation", "pipeline"} | TOP,
    "cli.py": {"commands"} | TOP,
}
# Within the two larger packages: the folders that each folder may import, besides itself and the modules above it.
FOLDERS = {
    "features/decoding": set(),
    "features/store": set(),
    "features/timesformer": {"features/decoding"},
    "pipeline/datasets": set(),
    "pipeline/extraction": {"pipeline/datasets"},
    "pipeline/finetuning": {"pipeline/datasets", "pipeline/extraction"},
    "pipeline/reporting": {"pipeline/datasets"},
    "pipeline/probing": {"pipeline/datasets", "pipeline/extraction"},
    "pipeline/experiments": {"pipeline/datasets", "pipeline/extraction", "pipeline/probing", "pipeline/reporting"},
    "pipeline/prediction": {"pipeline/datasets", "pipeline/extraction", "pipeline/finetuning", "pipeline/probing"},
}
HEAVY = ("torch", "transformers", "sklearn", "scipy", "matplotlib", "h5py", "av", "decord", "numpy")


def modules() -> list[Path]:
    rooms = [ROOT / name for name in ALLOWED]
    return sorted(path for room in rooms for path in ([room] if room.is_file() else room.rglob("*.py")))


def imported(path: Path, depth: int = 1) -> set[str]:
    """Return the rooms of actionvit that a module imports from, anywhere in it, named by `depth` parts."""
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [node.module or ""] if node.module != "actionvit" else [f"actionvit.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "actionvit":
                found.add("/".join(parts[1 : 1 + depth]) if len(parts) > 1 and parts[1][:2] != "__" else "__init__")
    return found


def test_imports_run_one_way() -> None:
    wrong = {
        path.relative_to(ROOT).as_posix(): extra
        for path in modules()
        if (extra := imported(path) - ALLOWED[path.relative_to(ROOT).parts[0]])
    }
    assert not wrong


def runtime_imports(path: Path) -> set[str]:
    """Return the modules of actionvit that a module imports at run time, at its top or inside functions."""
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return names


def test_there_is_no_import_cycle() -> None:
    def name_of(path: Path) -> str:
        parts = path.relative_to(ROOT).with_suffix("").parts
        return ".".join(("actionvit", *(parts[:-1] if parts[-1] == "__init__" else parts)))

    graph = {name_of(path): runtime_imports(path) for path in modules()}
    graph = {name: {target for target in targets & graph.keys() if target != name} for name, targets in graph.items()}
    while leaves := {name for name, targets in graph.items() if not targets & graph.keys()}:
        graph = {name: targets for name, targets in graph.items() if name not in leaves}
    assert not graph, f"these modules import one another: {sorted(graph)}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_know_only_those_below_them(folder: str) -> None:
    for path in (ROOT / folder).glob("*.py"):
        known = {name for name in imported(path, depth=2) & FOLDERS.keys() if name.startswith(folder.split("/")[0])}
        assert known - {folder} <= FOLDERS[folder], path


@pytest.mark.parametrize("room", ["features", "pipeline"])
def test_what_stands_above_the_folders_knows_none_of_them(room: str) -> None:
    for path in (ROOT / room).glob("*.py"):
        assert not [name for name in imported(path, depth=2) & FOLDERS.keys() if name.startswith(room)], path


def test_no_module_exceeds_400_lines() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert not {path: length for path, length in lengths.items() if length > 400}
    assert statistics.median(lengths.values()) <= 150


def test_names_of_tests_fit_in_60_characters() -> None:
    names = [
        node.name
        for path in (ROOT / "tests").glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert not [name for name in names if len(name) > 60]


def test_only_the_front_door_lies_at_the_top() -> None:
    assert {path.name for path in ROOT.glob("*.py")} == {
        "__init__.py",
        "__main__.py",
        "cli.py",
        "errors.py",
        "escape.py",
        "lazy.py",
        "settings.py",
        "text.py",
    }


@pytest.mark.parametrize(
    "arguments", ["import actionvit; dir(actionvit)", "import actionvit.cli", "import actionvit.commands.extract"]
)
def test_start_up_imports_nothing_heavy(arguments: str) -> None:
    code = f"{arguments}; import sys; print(*(m for m in {HEAVY!r} if m in sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
