"""Experiments: cells that differ in their settings, shards by hand, tables that agree with each other."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fake_features import write_dataset, write_store
from fake_store import environment
from planted_runs import planted

from actionvit.commands.experiment import command
from actionvit.errors import ActionVitError
from actionvit.evaluation.metrics import class_mix_distance, predicted
from actionvit.pipeline.datasets import Dataset, load_dataset
from actionvit.pipeline.experiments.differences import differences, findings
from actionvit.pipeline.experiments.grids import CONTROL, STRATEGIES, applies, heads_cells, imbalance_cells, thirds_of
from actionvit.pipeline.experiments.sharding import assign_shards, class_histograms
from actionvit.pipeline.experiments.tables import curves_figure, markdown, write_table
from actionvit.pipeline.probing.features import read_tables
from actionvit.pipeline.probing.probe import probe
from actionvit.pipeline.probing.spec import ProbeSpec
from actionvit.pipeline.probing.subsets import long_tail, tail_ranks


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
    assert [(cell.labels["weighting"], cell.spec.long_tail_even) for cell in tails[4:]] == [(CONTROL, True)]
    assert [(cell.spec.class_weight, cell.spec.long_tail) for cell in tails[:4]] == [
        ("none", 1.0),
        ("none", 8.0),
        ("balanced", 1.0),
        ("balanced", 8.0),
    ]
    assert {cell.spec.criterion for cell in tails} == {"mean_class_accuracy"}


def test_contiguous_shards_differ_and_stratified_agree() -> None:
    ids = [f"{name}/{number:02}" for name in "abcd" for number in range(12)]
    y = np.repeat(np.arange(4), 12)
    found = {}
    for how in ("contiguous", "hashed", "stratified"):
        shard = assign_shards(ids, y, shards=4, how=how)
        found[how] = class_histograms(y, shard, shards=4, classes=4)
        assert found[how].sum(axis=0).tolist() == [12] * 4
    assert found["contiguous"].tolist() == (12 * np.eye(4)).tolist()
    assert found["stratified"].tolist() == [[3] * 4] * 4
    assert class_mix_distance(found["contiguous"]) == pytest.approx(0.75)
    assert class_mix_distance(found["stratified"]) == 0
    assert 0 < class_mix_distance(found["hashed"]) < 0.75
    with pytest.raises(ValueError, match="sharding: got 'odd', expected one of contiguous, hashed, stratified"):
        assign_shards(ids, y, shards=4, how="odd")


def test_a_table_says_the_same_in_every_form(tmp_path) -> None:
    metric = {"mean": 0.721, "std": 0.083, "ci95": [0.656, 0.795]}
    rows = [
        {"head": "linear", "shots": 4, "top1": metric},
        {"head": "knn", "shots": 4, "top1": {**metric, "std": None}},
    ]
    table = write_table(tmp_path, "heads", rows, caption="Heads.", about={"dataset": "films"})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["heads.csv", "heads.json", "heads.md"]
    assert json.loads((tmp_path / "heads.json").read_text()) == table.record and table.record["rows"] == rows
    assert (tmp_path / "heads.md").read_text() == table.markdown
    with (tmp_path / "heads.csv").open() as stream:
        read = list(csv.DictReader(stream))
    assert (read[0]["top1"], read[0]["top1_low"], read[1]["top1_std"]) == ("0.721", "0.656", "")
    assert markdown(rows).splitlines()[2] == "| linear | 4 | 72.1 ± 8.3 [65.6, 79.5] |"
    picture = curves_figure(rows, tmp_path / "curves.png", x="shots", y="top1", series="head", names=("shots", "top-1"))
    assert picture.stat().st_size > 1000


WRITE = """
import resource, signal, sys
from pathlib import Path
from actionvit.errors import ActionVitError
from actionvit.pipeline.experiments.tables import curves_figure, write_table

folder, rows = Path(sys.argv[1]), []
for shots in range(1, 40):
    rows.append({"head": "linear", "shots": shots, "top1": {"mean": 0.7, "std": None, "ci95": [0.6, 0.8]}})
names = {"x": "shots", "y": "top1", "series": "head", "names": ("shots", "top-1")}
if sys.argv[2] == "killed":
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
if sys.argv[2]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for write in (
    lambda: write_table(folder, "heads", rows, caption="Heads.", about={}),
    lambda: curves_figure(rows, folder / "curves.png", **names),
):
    try:
        write()
    except ActionVitError as error:
        print(error)
"""
"""Writes 39 rows and their figure; `full`: onto a disk that takes 1,000 bytes per file, `killed`: killed there."""


@pytest.mark.parametrize("end", ["full", "killed"])
def test_full_disk_or_kill_leaves_earlier_tables(tmp_path: Path, end: str) -> None:
    row = {"head": "linear", "shots": 1, "top1": {"mean": 0.7, "std": None, "ci95": [0.6, 0.8]}}
    write_table(tmp_path, "heads", [row], caption="Heads.", about={})
    curves_figure([row], tmp_path / "curves.png", x="shots", y="top1", series="head", names=("shots", "top-1"))
    earlier = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    command = [sys.executable, "-c", WRITE, str(tmp_path)]
    done = subprocess.run([*command, end], env=environment(), capture_output=True, text=True, check=False)
    assert {name: (tmp_path / name).read_bytes() for name in earlier} == earlier
    if end == "killed":
        assert done.returncode == -signal.SIGXFSZ, done.stderr
    else:
        assert (done.returncode, set(earlier)) == (0, {path.name for path in tmp_path.iterdir()}), done.stderr
        assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
            str(tmp_path / "heads.json"),
            str(tmp_path / "curves.png"),
        ]
    subprocess.run([*command, ""], env=environment(), check=True)
    assert {path.name for path in tmp_path.iterdir()} == set(earlier), "temporary files of the killed process stay"
    assert all((tmp_path / name).read_bytes() != data for name, data in earlier.items())


def test_rows_are_compared_with_the_plain_one() -> None:
    random = np.random.default_rng(0)
    linear, better = planted(random, (0.0, 1.0), 200)
    labels = [("linear", "none", 4), ("linear", "balanced", 4), ("mlp", "none", 4), ("mlp", "balanced", 4)]
    labels.append(("mlp", "none", 8))  # no linear head of 8 shots: nothing to compare with
    rows = [
        (dict(zip(("head", "weighting", "shots"), names, strict=True)), one, None)
        for names, one in zip(labels, (linear, linear, better, linear, better), strict=True)
    ]
    found = differences(rows, metric="top1")
    hits = [predicted(one.scores) == one.true for one in (linear, better)]
    gain = float(hits[1].mean() - hits[0].mean())
    assert [(one.row, one.name, one.against) for one in found] == [
        (1, "balanced", "none"),
        (2, "mlp", "linear"),
        (3, "balanced", "none"),
    ]
    assert [one.value for one in found] == pytest.approx([0, gain, -gain])
    assert [one.shown for one in found] == [False, True, True]
    assert found[0].p == 1 and found[1].p < 0.01 and found[0].detectable > 0
    lines = findings(found)
    assert lines[0].startswith(
        "weighting, head linear, shots 4, against none: no difference shown for balanced (below "
    )
    assert lines[1].startswith(f"head, weighting none, shots 4, against linear: mlp better, +{100 * gain:.1f} points")
    assert all(0 <= one.p <= 1 for one in differences(rows, metric="mean_class_accuracy"))
    assert findings([]) == []


def test_every_factor_has_the_same_head_and_tail_classes() -> None:
    y = np.repeat(np.arange(9), 40)
    kept = {factor: np.bincount(y[long_tail(y, factor, seed=3)], minlength=9) for factor in (1.0, 4.0, 20.0)}
    rank = tail_ranks(9, 3)
    assert kept[1.0].tolist() == [40] * 9
    for factor in (4.0, 20.0):
        assert (np.diff(kept[factor][np.argsort(rank)]) <= 0).all(), "largest class first, as drawn by the seed"
        control = np.bincount(y[long_tail(y, factor, seed=3, even=True)], minlength=9)
        assert control.sum() == kept[factor].sum() and np.ptp(control) <= 1


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Path]:
    place = tmp_path_factory.mktemp("experiment")
    dataset = write_dataset(place / "films")
    write_store(place / "cache", dataset, noise=6.0)
    return dataset, place / "cache"


def experiment(films: tuple[Dataset, Path], out: Path, *arguments: str) -> list[dict]:
    """Run the command, check that its three forms are there, and return the rows."""
    dataset, cache = films
    name, *more = arguments
    where = ["--cache", str(cache), "--output", str(out), "--seeds", "2", "--folds", "2"]
    result = CliRunner().invoke(command, [name, str(dataset.root), *more, *where], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert (out / f"{name}.md").read_text() in result.output
    assert len((out / f"{name}.csv").read_text().splitlines()) > 1
    return json.loads((out / f"{name}.json").read_text())["rows"]


def test_the_heads_table_says_what_probe_says(films, tmp_path) -> None:
    rows = experiment(films, tmp_path, "heads", "--head", "linear,centroid", "--shots", "1,4")
    assert [(row["head"], row["weighting"], row["shots"]) for row in rows] == [
        *(("linear", "none", shots) for shots in (1, 4, "all")),
        *(("linear", weighting, "all") for weighting in ("balanced", "effective", "logit adjustment")),
        *(("centroid", "none", shots) for shots in (1, 4, "all")),
    ]
    dataset, cache = films
    tables = read_tables(dataset, ["base"], cache=cache)
    plain, few = (
        probe(dataset, tables, ProbeSpec(head=head, shots=shots, seeds=2, folds=2))[0].metrics["summary"]
        for head, shots in (("linear", 4), ("centroid", 4))
    )
    assert rows[1]["top1"] == plain["top1"] and rows[7]["top1"] == few["top1"]
    assert rows[7]["against"] == "linear"
    assert rows[7]["Δ top-1"]["value"] == pytest.approx(few["top1"]["mean"] - plain["top1"]["mean"])
    assert "against" not in rows[1]
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_json_of_an_experiment_is_that_of_its_files(films, tmp_path) -> None:
    dataset, cache = films
    where = ["--cache", str(cache), "--output", str(tmp_path), "--seeds", "1", "--folds", "2", "--head", "centroid"]
    result = CliRunner().invoke(command, ["splits", str(dataset.root), *where, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert (record["folder"], record["warnings"]) == (str(tmp_path), [])
    assert record["tables"] == [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("splits", "shards")]


def test_a_stopped_experiment_reads_the_runs_that_are_there(films, tmp_path) -> None:
    first = experiment(films, tmp_path, "shots", "--shots", "1,2", "--head", "centroid")
    runs = sorted((tmp_path / "runs").iterdir())
    before = {run.name: (run / "run.json").stat().st_mtime_ns for run in runs}
    again = experiment(films, tmp_path, "shots", "--shots", "1,2,4", "--head", "centroid")
    assert again[:2] == first[:2]
    after = {run.name: (run / "run.json").stat().st_mtime_ns for run in (tmp_path / "runs").iterdir()}
    assert len(after) == len(before) + 1 and all(after[name] == time for name, time in before.items())


def test_a_broken_run_of_an_experiment_is_made_again(films, tmp_path) -> None:
    first = experiment(films, tmp_path, "shots", "--shots", "1", "--head", "centroid")
    for run in (tmp_path / "runs").iterdir():
        (run / "predictions.npz").write_bytes((run / "predictions.npz").read_bytes()[:500])
    assert experiment(films, tmp_path, "shots", "--shots", "1", "--head", "centroid") == first


def test_a_run_of_the_user_is_not_replaced(films, tmp_path) -> None:
    experiment(films, tmp_path, "shots", "--shots", "1", "--head", "centroid")
    (run, *others) = sorted((tmp_path / "runs").iterdir())[::-1]
    for other in others:
        shutil.rmtree(other)
    info = json.loads((run / "run.json").read_text())
    del info["made_by"]
    (run / "run.json").write_text(json.dumps({**info, "videos_digest": "of other videos"}))
    before = (run / "run.json").read_bytes()
    where = ["--cache", str(films[1]), "--output", str(tmp_path), "--seeds", "2", "--folds", "2"]
    result = CliRunner().invoke(command, ["shots", str(films[0].root), *where, "--shots", "1", "--head", "centroid"])
    assert isinstance(result.exception, ActionVitError)
    assert str(result.exception).startswith(f"{run} exists and no experiment or sweep wrote it; choose another")
    assert (run / "run.json").read_bytes() == before and list((tmp_path / "runs").iterdir()) == [run]


def test_thirds_are_ranked_by_what_was_trained_on(tmp_path) -> None:
    """The class with most training clips has the fewest test clips, and comes last by name."""
    films = write_dataset(tmp_path / "films", sources=8, clips=1)
    train = dict(zip(films.class_names, (2, 3, 4, 6), strict=True))
    lines = ["path,label,split,source"]
    for video in films.videos:
        side = "train" if int(video.source[-1]) < train[video.label] else "test"
        lines.append(f"{video.path.relative_to(films.root)},{video.label},{side},{video.source}")
    (films.root / "films.csv").write_text("\n".join(lines) + "\n")
    dataset = load_dataset(films.root / "films.csv")
    write_store(tmp_path / "cache", films, noise=6.0)
    result = probe(dataset, read_tables(dataset, ["base"], cache=tmp_path / "cache"), ProbeSpec(protocol="official"))[0]
    found = result.predictions
    right, number = predicted(found.scores) == found.true, {name: i for i, name in enumerate(found.class_names)}
    by_class = {name: right[found.true == i] for name, i in number.items()}
    first, second, third, fourth = films.class_names
    row = thirds_of(dataset, result)
    expected = {"head": [fourth, third], "middle": [second], "tail": [first]}
    assert row.keys() == expected.keys()
    for name, classes in expected.items():
        assert row[name]["mean"] == np.concatenate([by_class[each] for each in classes]).mean()


def test_two_classes_have_no_tail(tmp_path) -> None:
    films = write_dataset(tmp_path / "two", classes=("clap", "run"), clips=2)
    write_store(tmp_path / "cache", films)
    where = [str(films.root), "--cache", str(tmp_path / "cache"), "--output", str(tmp_path / "out")]
    arguments = ["imbalance", *where, "--seeds", "1", "--folds", "2", "--head", "centroid", "--factors", "1,2"]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (file,) = (tmp_path / "out").rglob("imbalance.json")
    rows = json.loads(file.read_text(), parse_constant=pytest.fail)["rows"]
    assert all("head" in row and "tail" not in row for row in rows)


@pytest.mark.parametrize(
    "arguments",
    [*(("imbalance", "--factors", text) for text in ("nan", "inf", "1e400")), ("heads", "--shots", "9" * 20)],
)
def test_numbers_out_of_range_are_usage_errors(films, arguments: tuple[str, ...]) -> None:
    name, *options = arguments
    result = CliRunner().invoke(command, [name, str(films[0].root), "--cache", str(films[1]), *options])
    assert result.exit_code == 2 and "expected numbers of at least 1 and at most 1,000,000" in result.output


def test_two_rows_at_one_place_are_drawn(tmp_path) -> None:
    rows = [{"of": "a", "x": 16.0, "y": {"mean": mean, "ci95": [mean - 0.1, mean + 0.1]}} for mean in (0.5, 0.6)]
    assert curves_figure(rows, tmp_path / "c.png", x="x", y="y", series="of", names=("x", "y")).is_file()


def test_the_other_experiments_fill_their_tables(films, tmp_path) -> None:
    rows = experiment(films, tmp_path / "shots", "shots", "--shots", "1,2,4", "--head", "centroid")
    assert [(row["shots"], row["train"]) for row in rows[:3]] == [(1, 4), (2, 8), (4, 16)]
    assert (tmp_path / "shots" / "curves.png").exists()
    rows = experiment(films, tmp_path / "tails", "imbalance", "--factors", "1,8")
    assert rows[1]["train"] < rows[0]["train"]
    assert rows[-1]["weighting"] == CONTROL and rows[-1]["train"] == rows[1]["train"]
    assert rows[1]["tail"]["mean"] < rows[1]["head"]["mean"]
    assert [row.get("against") for row in rows] == [None, None, *["none"] * (len(rows) - 2)]
    assert {path.stem for path in (tmp_path / "tails").glob("*.png")} == {
        "head",
        "middle",
        "tail",
        "mean_class_accuracy",
    }
    rows = experiment(films, tmp_path / "splits", "splits", "--shards", "3")
    leaks = {row["splits"]: row["leaking sources"] for row in rows}
    assert leaks["grouped"] == 0 and leaks["random"] > 0 and leaks["stratified"] > 0
    shards = json.loads((tmp_path / "splits" / "shards.json").read_text())
    assert (tmp_path / "splits" / "shards.png").stat().st_size > 5000
    assert [row["sharding"] for row in shards["rows"]] == ["contiguous", "hashed", "stratified"]
    assert shards["rows"][2]["distance from whole"] < shards["rows"][1]["distance from whole"]
