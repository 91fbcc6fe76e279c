"""`actionvit cache`: every subcommand, for people and as JSON."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result
from fake_store import KEY, arrays_of, fill, make, numbered

from actionvit.cli import cli
from actionvit.errors import ActionVitError
from actionvit.features.store.catalog import find_store
from actionvit.features.store.keys import FeatureKey
from actionvit.features.store.parts import Row, list_parts
from actionvit.features.store.store import FeatureStore
from actionvit.features.store.writer import Writer
from actionvit.features.video_record import VideoRecord


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


def test_every_subcommand_speaks_json_and_has_help() -> None:
    command = cli.get_command(click.Context(cli), "cache")
    assert isinstance(command, click.Group)
    assert sorted(command.commands) == ["export", "ls", "merge", "prune", "show", "verify"]
    for each in command.commands.values():
        assert each.help and any("--json" in parameter.opts for parameter in each.params), each.name


def test_ls_lines_up_and_show_tells_the_key(root: Path) -> None:
    store = fill(root / "d" / "v-22222", range(1500), clip={"num_frames": 16})
    with Writer(FeatureStore.create(store.folder, key=store.key, dataset="d", variant="v", info={"videos": 3000})):
        pass
    head, *lines = cache("ls", "--cache", root).output.splitlines()[:3]
    assert head.split() == ["dataset", "variant", "rows", "failed", "coverage", "size", "written", "store"]
    for name in ("dataset", "variant", "store"):  # words to the left, under the first letter
        start = head.index(name)
        assert all(line[start] != " " and not line[max(0, start - 2) : start].strip() for line in lines), name
    for name in ("rows", "failed", "coverage", "size"):  # numbers to the right, under the last letter of their name
        end = head.index(name) + len(name)
        assert all(line[end - 1] != " " and line[end : end + 1] == " " for line in lines), name
    assert "1,500" in lines[1] and "50.0%" in lines[1] and "s ago" in lines[1]
    first, second = as_json("ls", "--cache", root)
    assert (first["rows"], second["rows"], second["coverage"], second["videos"]) == (3, 1500, 0.5, 3000)
    assert second["bytes"] == sum(path.stat().st_size for path in store.folder.iterdir())
    assert "clip.num_frames" in cache("show", root / "d" / "v-1").output
    shown = as_json("show", root / "d" / "v-1")
    assert shown["key"]["clip"]["num_frames"] == 8 and shown["key_digest"] == FeatureKey(**KEY).digest
    assert shown["digest"] == FeatureStore.open(root / "d" / "v-1").digest()
    assert isinstance(cache("show", root).exception, ActionVitError), "two stores, and none named"


def test_coverage_is_not_told_where_rows_outlived_their_videos(root: Path) -> None:
    store = FeatureStore.open(root / "d" / "v-1")
    store.write_info({"videos": 2})
    assert as_json("show", root / "d")["coverage"] is None
    assert " –  " in cache("ls", "--cache", root).output.splitlines()[1]


def test_one_damaged_store_costs_the_list_that_store_alone(root: Path) -> None:
    for name in ("v-2", "v-3"):
        fill(root / "d" / name, range(2), precision=name)
    (root / "d" / "v-2" / "key.json").write_text("{}")
    part = list_parts(root / "d" / "v-3")[0]
    part.write_bytes(part.read_bytes()[:-3000])
    result = cache("ls", "--cache", root)
    assert result.exit_code == 0
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("d ") and line.endswith("v-3")]
    assert " damaged " in line and f"{part.name}: damaged" in result.stderr
    rows = {Path(row["store"]).name: row for row in as_json("ls", "--cache", root)}
    assert list(rows) == ["v-1", "v-3"] and rows["v-1"]["damage"] == "" and part.name in rows["v-3"]["damage"]
    assert find_store(root, "d", "v", precision="fp32").folder.name == "v-1"


def test_verify_exits_with_1_until_repaired(root: Path) -> None:
    sound = as_json("verify", root)
    store = FeatureStore.open(root / "d" / "v-1")
    assert (sound["problems"], sound["rows"], sound["digest"]) == ([], 3, store.digest())
    assert f"3 rows, digest {store.digest()}" in cache("verify", root).output
    part = list_parts(root / "d" / "v-1")[0]
    part.write_bytes(part.read_bytes()[:-1] + b"\xff")
    result = cache("verify", root)
    assert result.exit_code == 1 and part.name in result.output and "digest" not in result.output.splitlines()[-1]
    report = json.loads(cache("verify", root, "--json").stdout)
    assert report["problems"][0]["file"] == part.name and report["digest"] is None
    assert cache("verify", root, "--repair").exit_code == 0
    assert cache("verify", root).exit_code == 0


def test_bad_rows_are_named(root: Path) -> None:
    part = list_parts(root / "d" / "v-1")[0]
    data = bytearray(part.read_bytes())
    data[data.index(arrays_of(numbered(1).record.digest)["clip"].tobytes())] ^= 1
    part.write_bytes(data)
    result = cache("verify", root)
    assert result.exit_code == 1 and f"{part.name}: bytes differ from its name; 1 lost:\n  v001\n" in result.output
    assert cache("verify", root, "--repair").exit_code == 0
    assert FeatureStore.open(root / "d" / "v-1").ids == ["v000", "v002"]


def test_shards_merge_into_their_sibling_and_other_keys_do_not(tmp_path: Path) -> None:
    whole = fill(tmp_path / "whole", range(6))
    shards = [tmp_path / f"v-1.shard-{number}-of-3" for number in (1, 2, 3)]
    for number, folder in enumerate(shards):
        fill(folder, range(number, 6, 3))
    result = cache("merge", *shards[:2])
    assert "shards 3 of 3" in result.stderr
    merged = {"store": str(tmp_path / "v-1"), "rows": 6, "failed": 0, "lacking": [], "digest": whole.digest()}
    assert as_json("merge", *shards) == {**merged, "warnings": []}
    assert FeatureStore.open(tmp_path / "v-1").digest() == whole.digest()
    other = fill(tmp_path / "other", (9,), precision="bf16").folder
    refused = cache("merge", shards[0], other, "--output", tmp_path / "never").exception
    assert isinstance(refused, ActionVitError)
    assert 'precision is "fp32" in v-1.shard-1-of-3 and "bf16" in other' in str(refused)
    odd = fill(tmp_path / "odd", ()).folder
    with Writer(FeatureStore.open(odd)) as out:
        row = numbered(0)
        out.append(Row(VideoRecord("v000", "f" * 64, row.record.fingerprint, 1, (), ""), row.arrays))
    assert "another video" in str(cache("merge", shards[0], odd, "--output", tmp_path / "never").exception)
    assert not (tmp_path / "never").exists()


@pytest.fixture
def retrained(root: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two stores of equal settings; the first one's weights file is gone."""
    gone, here = {"weights": str(tmp_path / "gone.pyth")}, {"weights": "elsewhere/new"}
    FeatureStore.open(root / "d" / "v-1").write_info(gone)
    new = fill(root / "d" / "v-2", range(2), weights="b" * 64)
    new.write_info(here)
    return root / "d" / "v-1", new.folder


def test_prune_asks_and_gives_the_reason(root: Path, retrained: tuple[Path, Path]) -> None:
    old, new = retrained
    result = cache("prune", "--cache", root, input="n\n")
    assert "gone.pyth are now gone" in result.output and old.exists()
    assert cache("prune", "--cache", root).exit_code == 1, "without a confirmation nothing is deleted"
    assert [row["deleted"] for row in as_json("prune", "--cache", root)] == [False] and old.exists()
    assert cache("prune", "--cache", root, "--yes").exit_code == 0
    assert not old.exists() and new.exists()
    assert "nothing to delete" in cache("prune", "--cache", root).output


def test_prune_never_offers_another_setting(root: Path) -> None:
    FeatureStore.open(root / "d" / "v-1").write_info({"weights": "/no/such/weights"})
    for number, change in enumerate(({"precision": "bf16"}, {"clip": {"num_frames": 16, "size": 112}})):
        fill(root / "d" / f"v-{number + 2}", range(2), weights="b" * 64, **change)
    for path in (root / "d" / "v-1").iterdir():
        os.utime(path, (1, 1))
    assert as_json("prune", "--cache", root, "--yes") == []


def test_prune_keeps_weights_that_cannot_be_checked(root: Path, retrained: tuple[Path, Path]) -> None:
    for source in ("owner/name", "relative/folder"):
        FeatureStore.open(retrained[0]).write_info({"weights": source})
        assert as_json("prune", "--cache", root, "--yes") == []


def test_stores_of_two_weights_are_told_apart_and_chosen(root: Path, retrained: tuple[Path, Path]) -> None:
    texts = [row["differs"] for row in as_json("ls", "--cache", root)]
    assert "gone.pyth (aaaaaaaaaa)" in texts[0] and texts[1] == "weights elsewhere/new (bbbbbbbbbb)"
    assert texts[1] in cache("ls", "--cache", root).output
    with pytest.raises(ActionVitError, match=r"2 stores of d v.*weights .*gone.*store=v-1"):
        find_store(root, "d", "v")
    for name in ("v-2", str(retrained[1]), "elsewhere/new", "bbbbbb"):
        assert find_store(root, "d", "v", names=[name]).folder == retrained[1]
    with pytest.raises(ActionVitError, match="no store 'v-3'"):
        find_store(root, "d", "v", names=["v-3"])


def test_prune_spares_what_has_rows_for_what_has_none(root: Path) -> None:
    empty = make(root / "d" / "v-2", precision="bf16").folder  # a run with a mistaken option, stopped at once
    (stale,) = as_json("prune", "--cache", root)
    assert stale["store"] == str(empty) and stale["reason"].startswith("no rows")
    assert find_store(root, "d", "v").folder.name == "v-1", "nor is it chosen as the store"


def test_prune_spares_copies_and_links_and_what_they_lead_to(root: Path, tmp_path: Path) -> None:
    (root / "old-name").symlink_to(root / "d")
    (root / "d" / "v-0").symlink_to(root / "d" / "v-1")
    assert as_json("prune", "--cache", root, "--yes") == [], "one store under several names"
    assert [row["store"] for row in as_json("ls", "--cache", root)] == [str(root / "d" / "v-1")]
    shutil.copytree(root / "d" / "v-1", root / "d-copy" / "v-1")
    assert as_json("prune", "--cache", root, "--yes") == [], "either of two copies may be the one that is kept"
    assert find_store(root, "d", "v").folder == root / "d" / "v-1", "nor is the copy chosen"
    outside = fill(tmp_path / "outside", range(2), precision="bf16").folder
    (root / "d" / "v-2").symlink_to(outside)
    for path in outside.iterdir():
        os.utime(path, (1, 1))
    assert as_json("prune", "--cache", root, "--yes") == []
    refused = cache("prune", root / "d" / "v-2", "--yes").exception
    assert isinstance(refused, ActionVitError) and f"is a link to {outside}" in str(refused)
    assert len(FeatureStore.open(outside)) == 2 and len(FeatureStore.open(root / "d" / "v-1")) == 3


def test_prune_spares_a_shard_whose_videos_are_others(root: Path) -> None:
    with Writer(fill(root / "d" / "v-1.shard-1-of-2", ())) as out:
        row = numbered(0)
        out.append(Row(VideoRecord("v000", "f" * 64, row.record.fingerprint, 1, (), ""), row.arrays))
    assert as_json("prune", "--cache", root) == []


def test_where_there_are_only_shards_the_remedy_works(tmp_path: Path) -> None:
    folder = fill(tmp_path / "d" / "v-1.shard-1-of-2", range(2)).folder
    fill(tmp_path / "d" / "w-1", range(2), precision="bf16")
    with pytest.raises(ActionVitError, match="only shards") as caught:
        find_store(tmp_path, "d", "v", precision="fp32")
    (pattern,) = re.findall(r"cache merge (\S+)`", str(caught.value))
    assert list(tmp_path.glob(str(Path(pattern).relative_to(tmp_path)))) == [folder]
    assert as_json("show", tmp_path / "d" / "w-1")["rows"] == 2


def test_prune_removes_merged_and_named_stores_after_consent(root: Path) -> None:
    shard = fill(root / "d" / "v-1.shard-1-of-2", range(2)).folder
    other = fill(root / "d" / "v-1.shard-2-of-2", range(9)).folder
    (stale,) = as_json("prune", "--cache", root)
    assert stale["store"] == str(shard) and stale["reason"] == "all its rows are in v-1"
    result = cache("prune", other, "--cache", root, input="y\n")
    assert "9 rows" in result.output and "1 deleted" in result.output and not other.exists()


@pytest.mark.parametrize("form", ["npz", "h5", "parquet"])
def test_export_gives_ids_labels_and_arrays_in_id_order(tmp_path: Path, form: str) -> None:
    for label in ("hop", "run"):
        (tmp_path / "clips" / label).mkdir(parents=True)
        (tmp_path / "clips" / label / f"{label}.avi").touch()
    store = fill(tmp_path / "cache" / "d" / "v", ())
    with Writer(store) as out:
        for number, name in enumerate(("run/run.avi", "hop/hop.avi")):
            row = numbered(number)
            out.append(Row(VideoRecord(name, row.record.digest, row.record.fingerprint, 30, (), "pyav"), row.arrays))
    file = tmp_path / f"all.{form}"
    arguments = ("export", tmp_path / "cache", "--output", file)  # the suffix selects the format
    assert "labels stay empty" in cache(*arguments).stderr
    assert as_json(*arguments, "--root", tmp_path / "clips")["unlabelled"] == 0
    found = {"npz": read_npz, "h5": read_h5, "parquet": read_parquet}[form](file)
    assert list(found["id"]) == ["hop/hop.avi", "run/run.avi"] and list(found["label"]) == ["hop", "run"]
    for name, shape in (("clip", (2, 1, 16)), ("frame", (2, 1, 8, 16)), ("index", (2, 1, 8))):
        assert found[name].shape == shape
        np.testing.assert_array_equal(found[name][1], numbered(0).arrays[name])


@pytest.mark.parametrize("form", ["npz", "h5", "parquet", "safetensors", "npy-folder"])
def test_export_replaces_only_earlier_exports_of_its_store(root: Path, tmp_path: Path, form: str) -> None:
    file = tmp_path / "out"
    arguments = ("export", root, "--format", form, "--output", file)
    first = cache(*arguments)
    assert first.exit_code == 0, first.exception
    quantities = FeatureStore.open(root / "d" / "v-1").quantities
    shape = ", ".join(map(str, quantities["frame"][0]))
    assert f"  frame: (3, {shape}) float32" in first.stdout and "  one text per row: id, label" in first.stdout
    assert cache(*arguments).exit_code == 0
    if form == "npy-folder":
        (file / "about.json").write_text("{}")
    else:
        fill(tmp_path / "other" / "d" / "v-2", range(2), weights="other")
        file.unlink()
        assert cache("export", tmp_path / "other", *arguments[2:]).exit_code == 0
    refused = cache(*arguments)
    message = "is no earlier export of"
    assert isinstance(refused.exception, ActionVitError) and message in str(refused.exception)
    assert "choose another --output, or --overwrite to replace it" in str(refused.exception)
    assert cache(*arguments, "--overwrite").exit_code == 0 and cache(*arguments).exit_code == 0


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


@pytest.mark.parametrize("form", ["npz", "h5", "parquet"])
def test_an_export_says_what_it_is_of(root: Path, tmp_path: Path, form: str) -> None:
    file = tmp_path / f"all.{form}"
    assert cache("export", root, "--format", form, "--output", file).exit_code == 0
    if form == "npz":
        text = zipfile.ZipFile(file).comment.decode()
    elif form == "h5":
        with h5py.File(file) as source:
            text = source.attrs["actionvit"]
    else:
        text = pytest.importorskip("pyarrow.parquet").read_schema(file).metadata[b"actionvit"].decode()
    about, store = json.loads(text), FeatureStore.open(root / "d" / "v-1")
    assert FeatureKey.from_dict(about["key"]) == store.key and about["digest"] == store.digest()


def test_safetensors_export_has_texts_in_its_metadata(root: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    file = tmp_path / "all.safetensors"
    assert cache("export", root, "--output", file).exit_code == 0
    store = FeatureStore.open(root / "d" / "v-1")
    with safe_open(file, framework="numpy") as tensors:
        metadata = tensors.metadata()
        assert json.loads(metadata["id"]) == store.ids and json.loads(metadata["actionvit"])["digest"] == store.digest()
        for name in ("clip", "frame", "index"):
            np.testing.assert_array_equal(tensors.get_tensor(name), store.read(store.ids, name))


def test_npy_folder_has_one_file_per_video_with_splits(tmp_path: Path) -> None:
    videos = ("hop/a.avi", "hop/b.avi", "hop/b.mp4")
    table = tmp_path / "clips.csv"
    lines = [f"{name},hop,{split},film" for name, split in zip(videos, ("train", "test", "train"), strict=True)]
    table.write_text("\n".join(["path,label,split,source", *lines]) + "\n")
    store = fill(tmp_path / "cache" / "d" / "v", ())
    with Writer(store) as out:
        for number, name in enumerate(videos):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
            row = numbered(number)
            out.append(Row(VideoRecord(name, row.record.digest, row.record.fingerprint, 30, (), "pyav"), row.arrays))
    folder = tmp_path / "frames"
    arguments = ("export", tmp_path / "cache", "--format", "npy-folder", "--output", folder, "--root", table)
    for _ in range(2):  # an existing folder is replaced
        assert as_json(*arguments)["unlabelled"] == 0
    with (folder / "videos.csv").open(newline="") as file:
        listing = {row["id"]: row for row in csv.DictReader(file)}
    assert [listing[name]["file"] for name in videos] == ["hop/a.npy", "hop/b.avi.npy", "hop/b.mp4.npy"]
    split = next(name for name in listing["hop/a.avi"] if name.startswith("split-"))
    assert [listing[name][split] for name in videos] == ["train", "test", "train"]
    assert listing["hop/a.avi"]["source"] == "film"
    array = np.load(folder / "hop" / "a.npy", allow_pickle=False)
    np.testing.assert_array_equal(array, numbered(0).arrays["frame"][0])
    assert not list(tmp_path.glob(".*"))


def test_exports_keep_the_types_and_take_further_arrays(tmp_path: Path) -> None:
    store = make(tmp_path / "cache" / "d" / "v")
    tokens = np.arange(24, dtype=np.float16).reshape(1, 2, 3, 4)
    with Writer(store) as out:
        for number in (1, 0):
            row = numbered(number)
            arrays = {**row.arrays, "tokens3": tokens + number}
            out.append(Row(VideoRecord(row.id, row.record.digest, row.record.fingerprint, 30, (), "pyav"), arrays))
    assert isinstance(
        cache("export", tmp_path / "cache", "--output", "x", "--include", "layer9").exception, ActionVitError
    )
    for form, read in (("npz", read_npz), ("h5", read_h5), ("parquet", read_parquet)):
        file = tmp_path / f"all.{form}"
        assert (
            cache("export", tmp_path / "cache", "--format", form, "--output", file, "--include", "tokens3").exit_code
            == 0
        )
        found = read(file)
        assert list(found) == ["id", "label", "clip", "frame", "index", "tokens3"] or form == "h5"
        np.testing.assert_array_equal(found["tokens3"][1], tokens + 1)
        if form != "parquet":
            assert [found[name].dtype for name in ("clip", "index", "tokens3")] == [np.float32, np.int32, np.float16]
    types = pytest.importorskip("pyarrow.parquet").read_schema(tmp_path / "all.parquet")
    assert str(types.field("frame").type).replace("element", "item").startswith("fixed_size_list<item: fixed_size_list")
    assert "halffloat" in str(types.field("tokens3").type) and "int32" in str(types.field("index").type)
