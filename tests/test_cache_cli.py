"""`actionvit cache`: every subcommand, for people and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result
from storing import fill, numbered

from actionvit.cli import cli
from actionvit.errors import ActionVitError
from actionvit.features.store.parts import list_parts
from actionvit.features.store.store import FeatureStore, Row


def cache(*arguments: object, **options: Any) -> Result:
    return CliRunner().invoke(cli, ["cache", *map(str, arguments)], **options)


def as_json(*arguments: object) -> Any:
    result = cache(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A cache root with one store of three rows."""
    fill(tmp_path / "cache" / "d" / "v-1", range(3))
    return tmp_path / "cache"


def test_ls_lines_up_and_show_tells_the_key(root: Path) -> None:
    fill(root / "d" / "v-22222", range(1500), clip={"num_frames": 16})
    lines = cache("ls", "--cache", root).output.splitlines()
    assert len(lines) == 3 and "1,500" in lines[2]
    assert lines[1].index(str(root)) == lines[2].index(str(root)) == lines[0].index("store")
    assert [row["rows"] for row in as_json("ls", "--cache", root)] == [3, 1500]
    assert "clip.num_frames" in cache("show", root / "d" / "v-1").output
    assert as_json("show", root / "d" / "v-1")["key"]["clip"]["num_frames"] == 8
    assert isinstance(cache("show", root).exception, ActionVitError), "two stores, and none named"


def test_verify_exits_with_1_until_repaired(root: Path) -> None:
    assert as_json("verify", root)["problems"] == []
    part = list_parts(root / "d" / "v-1")[0]
    part.write_bytes(part.read_bytes()[:-1] + b"\xff")
    result = cache("verify", root)
    assert result.exit_code == 1 and part.name in result.output
    assert cache("verify", root, "--repair").exit_code == 0
    assert cache("verify", root).exit_code == 0


def test_shards_merge_into_their_sibling_and_other_keys_do_not(tmp_path: Path) -> None:
    whole = fill(tmp_path / "whole", range(6))
    shards = [tmp_path / f"v-1.shard-{number}-of-3" for number in (1, 2, 3)]
    for number, folder in enumerate(shards):
        fill(folder, range(number, 6, 3))
    result = cache("merge", *shards[:2])
    assert "shards 3 of 3" in result.stderr
    assert as_json("merge", *shards) == {"store": str(tmp_path / "v-1"), "rows": 6, "failed": 0, "lacking": []}
    assert FeatureStore.open(tmp_path / "v-1").digest() == whole.digest()
    other = fill(tmp_path / "other", (9,), precision="bf16").folder
    refused = cache("merge", shards[0], other, "--out", tmp_path / "never").exception
    assert isinstance(refused, ActionVitError) and 'precision is "fp32" here and "bf16" there' in str(refused)
    odd = fill(tmp_path / "odd", ()).folder
    with FeatureStore.open(odd).writer() as out:
        row = numbered(0)
        out.append(Row("v000", "f" * 64, row.fingerprint, 1, (), "", row.arrays))
    assert "another video" in str(cache("merge", shards[0], odd, "--out", tmp_path / "never").exception)
    assert not (tmp_path / "never").exists()


def test_prune_asks_and_names_the_field(root: Path) -> None:
    old, new = root / "d" / "v-1", fill(root / "d" / "v-2", range(2), precision="bf16").folder
    import os

    for path in old.iterdir():
        os.utime(path, (1, 1))
    result = cache("prune", "--cache", root, input="n\n")
    assert "precision" in result.output and old.exists()
    assert [row["deleted"] for row in as_json("prune", "--cache", root)] == [False] and old.exists()
    assert cache("prune", "--cache", root, "--yes").exit_code == 0
    assert not old.exists() and new.exists()
    assert "nothing stale" in cache("prune", "--cache", root).output


@pytest.mark.parametrize("form", ["npz", "h5", "parquet"])
def test_export_gives_ids_labels_and_arrays_in_id_order(tmp_path: Path, form: str) -> None:
    for label in ("hop", "run"):
        (tmp_path / "clips" / label).mkdir(parents=True)
        (tmp_path / "clips" / label / f"{label}.avi").touch()
    store = fill(tmp_path / "cache" / "d" / "v", ())
    with store.writer() as out:
        for number, name in enumerate(("run/run.avi", "hop/hop.avi")):
            row = numbered(number)
            out.append(Row(name, row.digest, row.fingerprint, 30, (), "pyav", row.arrays))
    file = tmp_path / f"all.{form}"
    arguments = ("export", tmp_path / "cache", "--to", form, "--out", file)
    assert "labels stay empty" in cache(*arguments).stderr
    assert as_json(*arguments, "--root", tmp_path / "clips")["unlabelled"] == 0
    found = {"npz": read_npz, "h5": read_h5, "parquet": read_parquet}[form](file)
    assert list(found["id"]) == ["hop/hop.avi", "run/run.avi"] and list(found["label"]) == ["hop", "run"]
    for name, shape in (("clip", (2, 1, 16)), ("frame", (2, 1, 8, 16)), ("index", (2, 1, 8))):
        assert found[name].shape == shape
        np.testing.assert_array_equal(found[name][1], numbered(0).arrays[name])


def read_npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def read_h5(path: Path) -> dict[str, Any]:
    with h5py.File(path) as file:
        return {name: data.asstr()[:] if name in ("id", "label") else data[:] for name, data in file.items()}


def read_parquet(path: Path) -> dict[str, Any]:
    table = pytest.importorskip("pyarrow.parquet").read_table(path)
    columns = {name: table[name].to_pylist() for name in table.column_names}
    return {name: value if name in ("id", "label") else np.array(value) for name, value in columns.items()}
