"""Experiments: cells that differ in what they say, shards by hand, tables that agree with each other."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from actionvit.pipeline.probing.experiment import STRATEGIES, applies, heads_cells, imbalance_cells
from actionvit.pipeline.probing.sharding import assign_shards, class_histograms, distance_from_whole
from actionvit.pipeline.probing.tables import curves_figure, markdown, write_table
from actionvit.pipeline.probing.tasks import ProbeSpec


def test_a_head_is_tried_with_the_strategies_it_has_settings_for() -> None:
    assert [name for name in STRATEGIES if applies("centroid", name)] == ["none"]
    assert [name for name in STRATEGIES if applies("knn", name)] == ["none", "balanced", "effective"]
    assert [name for name in STRATEGIES if applies("mlp", name)] == list(STRATEGIES)


def test_cells_differ_in_what_their_labels_say() -> None:
    cells = heads_cells(ProbeSpec(), heads=("linear", "centroid"), strategies=tuple(STRATEGIES), shots=(1, 4))
    assert [tuple(cell.labels.values()) for cell in cells[-3:]] == [
        ("centroid", "none", 1),
        ("centroid", "none", 4),
        ("centroid", "none", "all"),
    ]
    assert len({cell.spec.head + str(cell.labels) for cell in cells}) == len(cells) == 9
    tails = imbalance_cells(ProbeSpec(), factors=(1.0, 8.0), strategies=("none", "balanced", "focal"))
    assert [(cell.spec.class_weight, cell.spec.long_tail) for cell in tails] == [
        ("none", 1.0),
        ("none", 8.0),
        ("balanced", 1.0),
        ("balanced", 8.0),
    ]
    assert {cell.spec.criterion for cell in tails} == {"mean_class_accuracy"}


def test_shards_of_a_sorted_list_see_other_classes_and_stratified_ones_do_not() -> None:
    ids = [f"{name}/{number:02}" for name in "abcd" for number in range(12)]
    y = np.repeat(np.arange(4), 12)
    found = {}
    for how in ("contiguous", "hashed", "stratified"):
        shard = assign_shards(ids, y, shards=4, how=how)
        found[how] = class_histograms(y, shard, shards=4, classes=4)
        assert found[how].sum(axis=0).tolist() == [12] * 4
    assert found["contiguous"].tolist() == (12 * np.eye(4)).tolist()
    assert found["stratified"].tolist() == [[3] * 4] * 4
    assert distance_from_whole(found["contiguous"]) == pytest.approx(0.75)
    assert distance_from_whole(found["stratified"]) == 0
    assert 0 < distance_from_whole(found["hashed"]) < 0.75
    with pytest.raises(ValueError, match="sharding: got 'odd', expected one of contiguous, hashed, stratified"):
        assign_shards(ids, y, shards=4, how="odd")


def test_a_table_says_the_same_in_every_form(tmp_path) -> None:
    metric = {"mean": 0.721, "std": 0.083, "ci95": [0.656, 0.795]}
    rows = [
        {"head": "linear", "shots": 4, "top1": metric},
        {"head": "knn", "shots": 4, "top1": {**metric, "std": None}},
    ]
    files = write_table(tmp_path, "heads", rows, caption="Heads.", about={"dataset": "films"})
    assert [file.name for file in files] == ["heads.json", "heads.csv", "heads.md"]
    assert json.loads(files[0].read_text())["rows"] == rows
    with files[1].open() as stream:
        read = list(csv.DictReader(stream))
    assert (read[0]["top1"], read[0]["top1_low"], read[1]["top1_std"]) == ("0.721", "0.656", "")
    assert markdown(rows).splitlines()[2] == "| linear | 4 | 72.1 ± 8.3 [65.6, 79.5] |"
    picture = curves_figure(rows, tmp_path / "curves.png", x="shots", y="top1", series="head", names=("shots", "top-1"))
    assert picture.stat().st_size > 1000
