"""The store package exports its public names, lazily."""

from __future__ import annotations

import subprocess
import sys

from actionvit.features import store


def test_public_names_are_exported() -> None:
    for name in store._MODULES:
        assert getattr(store, name).__name__ == name


def test_package_import_loads_neither_h5py_nor_torch() -> None:
    code = "import sys, actionvit.features.store; print(sorted({'h5py', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
