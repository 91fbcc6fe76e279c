"""Outputs that `cache export --overwrite` must not replace."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from fake_store import fill

from actionvit.errors import ActionVitError
from actionvit.features.store.export import Format, export_store
from actionvit.features.store.store import FeatureStore


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return fill(tmp_path / "project" / "cache" / "d" / "v", range(3))


def export(store: FeatureStore, out: Path, form: Format = "npy-folder", *, overwrite: bool = True) -> None:
    export_store(store, out, form, columns={}, overwrite=overwrite)


@pytest.mark.parametrize("place", ["project", "project/cache/d/v", "project/cache/d/v/new"])
def test_folder_that_overlaps_the_store_is_refused(store: FeatureStore, tmp_path: Path, place: str) -> None:
    (tmp_path / "project" / "notes.txt").write_text("x")
    with pytest.raises(ActionVitError, match="is, contains or lies in the store"):
        export(store, tmp_path / place)
    assert (tmp_path / "project" / "notes.txt").exists() and len(FeatureStore.open(store.folder)) == 3


def test_file_of_the_store_is_refused(store: FeatureStore) -> None:
    before = (store.folder / "manifest.json").read_bytes()
    with pytest.raises(ActionVitError, match="is, contains or lies in the store"):
        export(store, store.folder / "manifest.json", "npz")
    assert (store.folder / "manifest.json").read_bytes() == before


def test_folder_of_other_origin_is_kept(store: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(ActionVitError, match=r"notes\.txt: was not written by an export; move it"):
        export(store, tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_further_file_in_an_export_is_kept(store: FeatureStore, tmp_path: Path, overwrite: bool) -> None:
    export(store, tmp_path / "out")
    export(store, tmp_path / "out", overwrite=overwrite)
    (tmp_path / "out" / "more.npy").write_text("x")
    with pytest.raises(ActionVitError, match=r"more\.npy: was not written by an export"):
        export(store, tmp_path / "out", overwrite=overwrite)
    assert (tmp_path / "out" / "more.npy").exists()


@pytest.mark.parametrize("form", ["npz", "h5", "parquet", "safetensors"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_file_of_other_origin_is_kept(store: FeatureStore, tmp_path: Path, form: Format, overwrite: bool) -> None:
    out = tmp_path / f"mine.{form}"
    np.savez(tmp_path / "mine.npz", clip=np.zeros(3))
    for content in (b"somebody's notes", (tmp_path / "mine.npz").read_bytes()):
        out.write_bytes(content)
        with pytest.raises(ActionVitError, match=r"mine\.\w+: was not written by an export; move it"):
            export(store, out, form, overwrite=overwrite)
        assert out.read_bytes() == content
    out.unlink()
    export(fill(tmp_path / "other" / "d" / "v", range(2), weights="other"), out, form)
    export(store, out, form)
    with pytest.raises(ActionVitError, match="is no earlier export of"):
        export(FeatureStore.open(tmp_path / "other" / "d" / "v"), out, form, overwrite=False)


@pytest.mark.parametrize("form", ["npz", "npy-folder"])
def test_link_and_pipe_are_refused(store: FeatureStore, tmp_path: Path, form: Format) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(ActionVitError, match="exists and is not a"):
            export(store, tmp_path / name, form)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "pipe").is_fifo()
