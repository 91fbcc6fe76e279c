"""`actionvit probe` on real stores: splits, coverage, leaks, fusion, the same bytes twice, heads that load again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fake_features import CLASSES, write_dataset, write_store
from fake_store import environment, failed

from actionvit.cli import cli
from actionvit.commands.probe import command
from actionvit.errors import ActionVitError, SettingError
from actionvit.features.store.writer import Writer
from actionvit.heads.linear import LinearProbe
from actionvit.heads.saving import load_head
from actionvit.pipeline.datasets import Dataset, load_dataset
from actionvit.pipeline.experiments.tables import chosen_counts, edge_notes
from actionvit.pipeline.probing.features import coverage, read_tables
from actionvit.pipeline.probing.probe import probe
from actionvit.pipeline.probing.results import PlannedRun, ProbeResult, reserved_runs, videos_digest
from actionvit.pipeline.probing.spec import ProbeSpec
from actionvit.pipeline.probing.tasks import plan
from actionvit.pipeline.runs import read_run


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("probe") / "films")


@pytest.fixture(scope="module")
def cache(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probe-cache")
    write_store(folder, dataset, "base")
    write_store(folder, dataset, "hr", noise=0.7, seed=1)
    return folder


def test_other_files_under_the_same_ids_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = write_dataset(tmp_path / "films", sources=2)
    store = write_store(tmp_path / "cache", dataset)
    with Writer(store) as out:
        out.add_failure(failed("no/longer.avi", "corrupt", "bad header"))
        out.add_failure(failed(dataset.videos[0].id, "corrupt", "bad header"))
    dataset.videos[1].path.write_bytes(b"another video")
    dataset.videos[2].path.unlink()
    dataset.videos[3].path.touch()
    (table,) = read_tables(dataset, ["base"], cache=tmp_path / "cache")
    (message,) = caplog.messages
    assert "embeddings of 1 videos are of other files" in message and str(dataset.root) in message
    assert coverage(dataset, table)["failures"] == [{"id": dataset.videos[0].id, "reason": "corrupt"}]


def run_command(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command, list(arguments), catch_exceptions=False)
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def split_lists(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Official lists: films 0 to 4 train, 5 and 6 test, 7 unused; split 2 the other way about."""
    folder = tmp_path_factory.mktemp("lists")
    for name in CLASSES:
        for number in (1, 2, 3):
            lines = []
            for video in (video for video in dataset.videos if video.label == name):
                film = int(video.source[-1])
                code = 0 if film == 7 else 1 if (film + 2 * number) % 7 < 5 else 2
                lines.append(f"{video.path.name} {code} \n")
            (folder / f"{name}_test_split{number}.txt").write_text("".join(lines))
    return folder


def test_two_balanced_variants_on_official_splits_fused(dataset, cache, split_lists, tmp_path) -> None:
    arguments = [
        *(str(dataset.root), "--splits-dir", str(split_lists), "--cache", str(cache), "--runs", str(tmp_path)),
        *("--variant", "base", "--variant", "hr", "--balanced", "--fuse", "stacked"),
    ]
    code, output = run_command(*arguments)
    assert code == 0, output
    assert "official splits (the default for this dataset), 1 seed" in output
    assert "96 of 96 videos have embeddings of base, hr" in output
    names = {"base-linear-balanced", "hr-linear-balanced", "base+hr-linear-balanced-fused-stacked"}
    assert {path.name for path in tmp_path.iterdir()} == names
    run = read_run(tmp_path / "hr-linear-balanced")
    assert run.predictions.split_names == ("official-1", "official-2", "official-3")
    assert len(run.predictions.id) == 3 * 4 * 2 * 3
    assert [split["n_train"] for split in run.metrics["splits"]] == [60, 60, 60]
    assert run.metrics["summary"]["top1"]["mean"] > 0.8
    assert [search["criterion"] for search in run.info["search"]] == ["mean_class_accuracy"] * 3
    assert all(search["by"] == "source" and search["folds"] == 5 for search in run.info["search"])
    assert run.info["leaks"] == {}
    assert run.info["gmac"] > 0
    for split, ids in run.train.items():
        tested = set(run.predictions.id[run.predictions.split == split].tolist())
        assert not tested & set(ids)
    fused = read_run(tmp_path / "base+hr-linear-balanced-fused-stacked")
    assert fused.info["variant"] == "base+hr"
    assert fused.info["gmac"] == pytest.approx(2 * run.info["gmac"])
    base = read_run(tmp_path / "base-linear-balanced")
    both = [one for pair in zip(base.info["search"], run.info["search"], strict=True) for one in pair]
    assert fused.info["search"] == both and [one["variant"] for one in both] == ["base", "hr"] * 3


def test_rerun_in_another_process_gives_the_same_bytes(forked, dataset, cache, tmp_path) -> None:
    files = ("predictions.npz", "metrics.json", "head.safetensors", "train.json")
    found = []
    for jobs in ("1", "2"):
        arguments = [str(dataset.root), "--cache", str(cache), "--runs", str(tmp_path), "--seeds", "2", "--jobs", jobs]
        assert forked.run(["probe", *arguments]).returncode == 0
        found.append([(tmp_path / "base-linear" / name).read_bytes() for name in files])
    assert found[0] == found[1]
    modes = {(tmp_path / "base-linear" / name).stat().st_mode for name in files}
    assert len(modes) == 1, "metrics and head have the same permissions"


@pytest.mark.parametrize("head", ["mlp", "attentive"])
def test_torch_heads_repeat_their_bytes_and_load_again(dataset, cache, head) -> None:
    import torch

    spec = ProbeSpec(
        head=head,
        features="frame" if head == "attentive" else "clip",
        protocol="stratified",
        folds=2,
        seeds=1,
        grid={"epochs": (2, 4), "queries" if head == "attentive" else "width": (2,)},
        sampler="balanced",
    )
    threads = torch.get_num_threads()
    tables = read_tables(dataset, ["base"], cache=cache, quantity=spec.features)
    first, again = (probe(dataset, tables, spec, jobs=jobs)[0] for jobs in (1, 2))
    np.testing.assert_array_equal(first.predictions.scores, again.predictions.scores)
    assert torch.get_num_threads() == threads


def test_progress_counts_every_split_of_every_variant(dataset, cache) -> None:
    tables = read_tables(dataset, ["base", "hr"], cache=cache)
    calls: list[tuple[int, int]] = []
    spec = ProbeSpec(protocol="grouped", seeds=2, head="centroid")
    probe(dataset, tables, spec, on_task=lambda *done: calls.append(done))
    total = len(tables) * 2 * 5
    assert calls == [(number, total) for number in range(1, total + 1)]


def log_loss(result: ProbeResult) -> float:
    found = result.predictions
    return -float(np.log(found.scores[np.arange(len(found.true)), found.true]).mean())


def test_fusing_calibrated_heads_does_not_calibrate_them_twice(dataset, cache) -> None:
    tables = read_tables(dataset, ["base", "hr"], cache=cache)
    spec = ProbeSpec(protocol="grouped", seeds=1, grid={"C": (3e-3,)})  # underconfident
    *_, plain = probe(dataset, tables, spec, fusion=["stacked"])
    *members, fused = probe(dataset, tables, replace(spec, calibrate=True), fusion=["stacked"])
    assert log_loss(fused) == pytest.approx(log_loss(plain), abs=0.02)
    assert log_loss(fused) < min(log_loss(one) for one in members)
    assert members[0].info["head"]["C"] == 3e-3 and members[0].info["head"]["kind"] == "linear"


@pytest.mark.parametrize("views", ["mean", "each"])
def test_calibration_is_a_power_of_what_it_was_fitted_to(dataset, cache, views) -> None:
    tables = read_tables(dataset, ["base"], cache=cache)
    spec = ProbeSpec(protocol="grouped", seeds=1, views=views, grid={"C": (3e-3,)})
    plain, calibrated = (probe(dataset, tables, one)[0] for one in (spec, replace(spec, calibrate=True)))
    assert log_loss(calibrated) < log_loss(plain)
    before, after = (np.log(np.maximum(one.predictions.scores, 1e-30)) for one in (plain, calibrated))
    np.testing.assert_array_equal(before.argmax(axis=1), after.argmax(axis=1))
    before, after = (one - one.max(axis=1, keepdims=True) for one in (before, after))
    seen = (after > -50) & (before < -0.1)
    assert seen.sum() > 20
    for split in plain.predictions.split_names:
        rows = seen & (plain.predictions.split == split)[:, None]
        ratio = after[rows] / before[rows]
        assert ratio.min() > 1 and np.ptp(ratio) < 0.02 * ratio.max()


def test_training_set_of_one_source_uses_fixed_parameters(dataset, cache, tmp_path) -> None:
    lines = ["path,label,split,source"]
    for video in dataset.videos:
        film, side = video.source[-1], "test" if video.source[-1] in "67" else "train"
        if film in "067":
            lines.append(f"{video.path.relative_to(dataset.root)},{video.label},{side},film{film}")
    (dataset.root / "one.csv").write_text("\n".join(lines) + "\n")
    single = load_dataset(dataset.root / "one.csv", name="films")
    tables = read_tables(single, ["base"], cache=cache)
    for grid, C in (({}, 1e-2), ({"C": (0.5,)}, 0.5)):
        result = probe(single, tables, ProbeSpec(protocol="official", grid=grid))[0]
        assert result.head.get_params()["C"] == C
        assert result.info["search"][0]["scored"] == 0
    (dataset.root / "one.csv").unlink()


def test_other_run_of_that_name_is_refused_before_work(dataset, cache, tmp_path, monkeypatch) -> None:
    where = [str(dataset.root), "--cache", str(cache), "--runs", str(tmp_path), "--seeds", "1", "--protocol", "grouped"]
    assert run_command(*where, "--run-name", "mine")[0] == 0
    assert run_command(*where, "--run-name", "mine")[0] == 0  # the same question
    monkeypatch.setattr("actionvit.pipeline.probing.probe.probe", None)
    with pytest.raises(ActionVitError, match=r"other settings: --class-weight none \(here balanced\)"):
        run_command(*where, "--run-name", "mine", "--balanced")
    code, output = run_command(*where, "--run-name", "both", "--class-weight", "none", "--class-weight", "balanced")
    assert (code, "--run-name names one run, and there are 2" in output) == (2, True)


def test_run_of_other_embeddings_is_not_replaced(dataset, cache, tmp_path) -> None:
    other = tmp_path / "other"
    write_store(other, dataset, "base", noise=0.1, weights="1" * 64)
    where = [str(dataset.root), "--runs", str(tmp_path), "--seeds", "1", "--protocol", "grouped", "--run-name", "mine"]
    assert run_command(*where, "--cache", str(cache))[0] == 0
    (tmp_path / "mine" / "report").mkdir()
    (tmp_path / "mine" / "report" / "report.html").write_text("of these numbers")
    assert run_command(*where, "--cache", str(cache))[0] == 0
    assert (tmp_path / "mine" / "report" / "report.html").read_text() == "of these numbers"
    before = (tmp_path / "mine" / "predictions.npz").read_bytes()
    with pytest.raises(ActionVitError, match="exists with other embeddings: choose another --run-name, or --overwrite"):
        run_command(*where, "--cache", str(other))
    assert (tmp_path / "mine" / "predictions.npz").read_bytes() == before
    assert run_command(*where, "--cache", str(other), "--overwrite")[0] == 0
    assert not (tmp_path / "mine" / "report").exists(), "its numbers are gone"


def test_of_several_embeddings_one_is_named(dataset, tmp_path) -> None:
    for size in (160, 224):
        write_store(tmp_path / "cache", dataset, size=size)
    where = [str(dataset.root), "--cache", str(tmp_path / "cache"), "--seeds", "1", "--protocol", "grouped"]
    with pytest.raises(ActionVitError, match=r"2 stores of films base.*choose one with --store base-"):
        run_command(*where, "--runs", str(tmp_path / "runs"))
    for size in (160, 224):
        assert run_command(*where, "--runs", str(tmp_path / f"{size}"), "--size", str(size))[0] == 0
        run = read_run(tmp_path / f"{size}" / "base-linear-grouped")
        assert run.info["store"]["key"]["clip"]["size"] == size
    with pytest.raises(ActionVitError, match=r"no embeddings of films base with --size 448"):
        run_command(*where, "--runs", str(tmp_path / "runs"), "--size", "448")


def test_other_splits_are_another_question(dataset) -> None:
    ids = [video.id for video in dataset.videos][:-1]
    fewer = replace(dataset, videos=dataset.videos[:-1])
    spec = ProbeSpec(protocol="grouped")
    tasks = plan(dataset, spec)
    assert videos_digest(dataset, ids, tasks) != videos_digest(fewer, ids, plan(fewer, spec))
    assert videos_digest(dataset, ids, tasks) == videos_digest(dataset, ids, plan(dataset, spec))
    assert videos_digest(dataset, ids, tasks) != videos_digest(dataset, ids, plan(dataset, replace(spec, folds=4)))


def test_the_saved_head_gives_the_first_splits_scores(dataset, cache, tmp_path) -> None:
    spec = ProbeSpec(protocol="grouped", folds=2, seeds=1, calibrate=True)
    tables = read_tables(dataset, ["base", "hr"], cache=cache)
    for result in probe(dataset, tables, spec, fusion=["stacked"]):
        run = result.write(tmp_path)
        head = load_head(*run.head())
        rows = run.predictions.split == run.predictions.split_names[0]
        blocks = [table.X.mean(axis=1)[table.rows(run.predictions.id[rows].tolist())] for table in tables]
        used = [
            block for table, block in zip(tables, blocks, strict=True) if table.variant in run.info["input"]["variants"]
        ]
        np.testing.assert_array_equal(
            head.predict_proba(np.hstack(used)).astype(np.float32), run.predictions.scores[rows]
        )


def test_clips_that_are_not_cached_are_counted_and_said(dataset, tmp_path) -> None:
    write_store(tmp_path / "cache", dataset, "base")
    write_store(tmp_path / "cache", dataset, "hr", skip=7)
    where = ["--cache", str(tmp_path / "cache"), "--runs", str(tmp_path / "runs"), "--seeds", "1"]
    code, output = run_command(str(dataset.root), *where, "--variant", "base", "--variant", "hr")
    assert code == 0
    assert "89 of 96 videos have embeddings of base, hr" in output
    assert "warning: 7 videos have no hr embedding and are left out" in output
    coverage = read_run(tmp_path / "runs" / "base-linear").info["coverage"]
    assert (coverage["videos"], coverage["cached"], coverage["missing"], coverage["used"]) == (96, 96, 0, 89)
    coverage = read_run(tmp_path / "runs" / "hr-linear").info["coverage"]
    assert (coverage["cached"], coverage["missing"], coverage["used"]) == (89, 7, 89)


def test_failed_and_missing_videos_get_separate_warnings(dataset, tmp_path) -> None:
    with Writer(store := write_store(tmp_path / "cache", dataset, "tiny", skip=3)) as out:
        out.add_failure(failed(dataset.videos[-1].id, "corrupt", "bad header"))
    where = ["--cache", str(tmp_path / "cache"), "--runs", str(tmp_path / "runs"), "--seeds", "1", "--variant", "tiny"]
    _, output = run_command(str(dataset.root), *where)
    assert f"warning: 1 video is left out: not decodable ({store.folder}/failures.csv)\n" in output
    views = "--num-frames 4 --size 224 --num-clips 2"
    remedy = f"run `actionvit extract {dataset.root} --variant tiny {views}`\n"
    assert f"warning: 2 videos have no tiny embedding and are left out: {remedy}" in output


def test_classes_without_test_videos_are_warned_of_once(tmp_path) -> None:
    dataset = write_dataset(tmp_path / "films", sources=6, clips=2)
    for video in dataset.videos:  # two films of `jump` are left
        if video.label == "jump" and video.source not in ("Filmjump0", "Filmjump1"):
            video.path.unlink()
    dataset = load_dataset(dataset.root)
    write_store(tmp_path / "cache", dataset)
    where = ["--cache", str(tmp_path / "cache"), "--runs", str(tmp_path / "runs"), "--seeds", "1"]
    _, output = run_command(str(dataset.root), *where)
    sentence = (
        "3 of 5 splits test no video of some class (jump: 3 splits);"
        " mean class accuracy averages the classes present; use --folds 2 or more sources"
    )
    assert output.count(f"warning: {sentence}\n") == 1
    check = CliRunner().invoke(cli, ["data", "check", str(dataset.root)]).output
    assert check.count(sentence.replace("--folds ", "folds=")) == 1
    assert "splits test no" not in run_command(str(dataset.root), *where, "--folds", "2", "--overwrite")[1]


def test_misspelled_variant_gets_a_suggestion(dataset, cache, tmp_path) -> None:
    with pytest.raises(ActionVitError) as refused:
        read_tables(dataset, ["bsae"], cache=cache)
    assert str(refused.value) == (
        f"variant: no embeddings of films for 'bsae' in {cache}; cached for films: base, hr; did you mean base?"
    )
    with pytest.raises(ActionVitError) as refused:
        read_tables(dataset, ["base"], cache=tmp_path)
    assert str(refused.value) == (
        f"no embeddings of films in {tmp_path}; run `actionvit extract {dataset.root} --variant base`"
    )


def test_parameters_at_an_edge_get_a_wider_grid() -> None:
    search = {"parameter": "C", "values": [0.1, 1.0, 10.0], "chosen": 10.0, "at_edge": ["C"]}
    inside = {**search, "chosen": 1.0, "at_edge": []}
    (text,) = edge_notes([search, search, inside])
    assert text == ("C 10, an edge of its grid, was chosen in 2 of 3 splits; widen it with grid=C=0.1,1,10,100,1000")
    assert edge_notes([search, inside, inside]) == [], "rare"
    (text,) = edge_notes([{**search, "chosen": 0.1}])
    assert text.endswith("grid=C=0.001,0.01,0.1,1,10")
    pairs = [{"k": k, "temperature": t} for k in (1, 3, 5) for t in (0.1, 0.2)]
    several = {"parameter": "k × temperature", "values": pairs, "chosen": pairs[0], "at_edge": ["k", "temperature"]}
    (text,) = edge_notes([several])
    assert text.startswith("temperature 0.1, an edge"), "k is at least 1"
    searches = [{**search, "chosen": value} for value in (10.0, 9.0, 10.0, 0.5)]
    assert chosen_counts(searches) == [("C 0.5", 1), ("C 9", 1), ("C 10", 2)]


def test_a_split_that_leaks_warns_with_the_count(dataset, cache, tmp_path) -> None:
    where = ["--cache", str(cache), "--runs", str(tmp_path), "--seeds", "1"]
    _, output = run_command(str(dataset.root), *where, "--protocol", "random")
    leaks = read_run(tmp_path / "base-linear-random").info["leaks"]
    assert len(leaks) == 5
    assert f"warning: in 5 of 5 splits up to {max(leaks.values())} sources have clips of one class in both" in output
    _, output = run_command(str(dataset.root), *where)
    assert "grouped splits (the default for this dataset), 1 seed" in output
    assert "warning" not in output


def test_protocols_are_chosen_by_what_the_dataset_has(tmp_path) -> None:
    for name in ("clap", "wave"):
        (tmp_path / "plain" / name).mkdir(parents=True)
        for number in range(12):
            (tmp_path / "plain" / name / f"{number:02}.mp4").touch()
    plain = load_dataset(tmp_path / "plain")
    write_store(tmp_path / "cache", plain)
    where = ["--cache", str(tmp_path / "cache"), "--runs", str(tmp_path / "runs")]
    _, output = run_command(str(tmp_path / "plain"), *where)
    assert "plain: stratified splits (the default for this dataset), 5 seeds" in output
    run = read_run(tmp_path / "runs" / "base-linear")
    assert len(run.metrics["splits"]) == 25
    assert set(run.predictions.source.tolist()) == {""}
    assert {search["by"] for search in run.info["search"]} == {"row"}


def test_another_question_does_not_overwrite_a_run(dataset, cache, tmp_path) -> None:
    where = [str(dataset.root), "--cache", str(cache), "--runs", str(tmp_path), "--seeds", "1"]
    run_command(*where)
    run_command(*where)  # the same settings: replaced by the same run
    with pytest.raises(ActionVitError, match=r"base-linear exists with other settings: --folds 5 \(here 3\): choose"):
        run_command(*where, "--folds", "3")
    with pytest.raises(ActionVitError, match=r"--grid default \(here C=0.1,1\): choose another --run-name, or"):
        run_command(*where, "--grid", "C=0.1,1")
    other = write_dataset(tmp_path / "others" / "films2")
    write_store(tmp_path / "others", other)
    again = [str(other.root), "--cache", str(tmp_path / "others"), *where[3:]]
    name = "choose another --run-name, for example films2-base-linear, or"
    with pytest.raises(ActionVitError, match=rf"exists, of dataset films \(this one: films2\): {name}"):
        run_command(*again)
    shutil.rmtree(tmp_path / "others")
    run_command(*where, "--folds", "3", "--run-name", "three")
    run_command(*where, "--folds", "3", "--overwrite")
    assert {path.name for path in tmp_path.iterdir()} == {"base-linear", "three"}
    assert len(read_run(tmp_path / "base-linear").metrics["splits"]) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--head", "knn", "--sampler", "balanced"], "--sampler: got balanced, but the head `knn` has no such setting"),
        (
            ["--head", "centroid", "--balanced"],
            "--class-weight: got balanced, but the head `centroid` has no such setting",
        ),
        (["--grid", "k=1"], "--grid: got k, but the head `linear` has C, class_weight"),
        (["--protocol", "official"], "no official splits"),
        (["--variant", "large"], r"no embeddings of films large, .* run `actionvit extract /\S+ --variant large`"),
        (["--grid", "C=much"], "--grid: got C=much, expected a number"),
        (["--grid", "C=-1"], "head linear: C"),
        (["--grid", "standardize=maybe"], "--grid: got standardize=maybe, expected true or false"),
        (["--head", "knn", "--grid", "k=2.5"], "--grid: got k=2.5, expected a whole number"),
        (["--head", "knn", "--grid", "k=0"], "head knn: k"),
        (["--head", "mlp", "--grid", "width=0"], "head mlp: width: got 0"),
        (
            ["--grid", "device=cuda"],
            "--grid: got device, but the head `linear` has C, class_weight, logit_adjust, max_iter",
        ),
        (["--device", "cuda:99"], "device cuda"),
        (["--device", "cpu:first"], "device: got 'cpu:first'"),
        (["--device", "gpu"], "device: got 'gpu', expected auto, cpu, cuda"),
        (["--features", "layers", "--variant", "base"], None),
    ],
)
def test_errors_say_what_and_the_remedy(dataset, cache, tmp_path, arguments, message) -> None:
    where = [str(dataset.root), "--cache", str(cache), "--runs", str(tmp_path), "--seeds", "1"]
    if message is None:
        assert run_command(*where, *arguments)[0] == 0
        return
    with pytest.raises(ActionVitError, match=message) as caught:
        run_command(*where, *arguments)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_options_that_contradict_are_refused(dataset, cache) -> None:
    code, output = run_command(str(dataset.root), "--balanced", "--class-weight", "none")
    assert (code, "give one of them" in output) == (2, True)
    code, output = run_command(str(dataset.root), "--grid", "C")
    assert (code, "expected NAME=VALUE" in output) == (2, True)
    code, output = run_command(str(dataset.root), "--grid", "C=1", "--grid", "C=2")
    assert (code, "got C twice" in output) == (2, True)
    with pytest.raises(SettingError, match=r"--run-name: got '\.\./there', expected a name"):  # exit code 2
        run_command(str(dataset.root), "--cache", str(cache), "--run-name", "../there")
    code, output = run_command(str(dataset.root), "--fuse", "mean")
    assert (code, "--fuse joins several variants" in output) == (2, True)


def test_a_grid_may_hold_switches_and_words(dataset, cache, tmp_path) -> None:
    where = [str(dataset.root), "--cache", str(cache), "--runs", str(tmp_path), "--seeds", "1", "--protocol", "grouped"]
    found = []
    for number, value in enumerate(("true", "False")):
        assert run_command(*where, "--grid", f"standardize={value}", "--grid", "C=1", "--run-name", f"{number}")[0] == 0
        found.append(read_run(tmp_path / f"{number}"))
    assert [run.info["head"]["standardize"] for run in found] == [True, False]
    assert np.abs(found[0].predictions.scores - found[1].predictions.scores).max() > 1e-3
    code, output = run_command(*where, "--grid", "class_weight=none,balanced", "--run-name", "words")
    assert code == 0 and ("class_weight none" in output or "class_weight balanced" in output)


def test_a_split_without_cached_test_videos_says_so(dataset, tmp_path, split_lists) -> None:
    write_store(tmp_path / "cache", dataset, skip=72)
    where = ["--cache", str(tmp_path / "cache"), "--runs", str(tmp_path), "--splits-dir", str(split_lists)]
    with pytest.raises(ActionVitError, match="split official-1: of 60 training and 24 test videos 15 and 6 are cached"):
        run_command(str(dataset.root), *where)


@pytest.mark.parametrize("views", ["mean", "each"])
@pytest.mark.parametrize(("head", "features"), [("linear", "clip"), ("knn", "frame"), ("centroid", "layers")])
def test_every_head_takes_every_quantity_and_views(dataset, cache, head, features, views) -> None:
    spec = ProbeSpec(head=head, features=features, views=views, folds=2, seeds=1, protocol="grouped")
    result = probe(dataset, read_tables(dataset, ["hr"], cache=cache, quantity=features), spec)[0]
    assert result.metrics["summary"]["top1"]["mean"] > 0.6
    assert len(result.predictions.id) == 96  # one row per video, for any number of views


def test_shots_and_long_tails_thin_the_training_set_alone(dataset, cache) -> None:
    tables = read_tables(dataset, ["base"], cache=cache)
    for spec, count in ((ProbeSpec(shots=3), 12), (ProbeSpec(long_tail=12.0), 12 + 5 + 2 + 1)):
        result = probe(dataset, tables, replace(spec, folds=2, seeds=1, protocol="grouped"))[0]
        assert [split["n_train"] for split in result.metrics["splits"]] == [count, count]
        assert sum(split["n_test"] for split in result.metrics["splits"]) == 96


def test_no_torch_where_no_head_needs_it(dataset, cache, tmp_path) -> None:
    arguments = ["probe", str(dataset.root), "--cache", str(cache), "--runs", str(tmp_path), "--seeds", "1"]
    code = f"from actionvit.cli import cli; cli({arguments}, standalone_mode=False)"
    code += "; import sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_the_final_head_is_trained_on_all_videos(dataset, cache, tmp_path) -> None:
    """Its setting is the one of most splits; the figures stay those of the splits' heads."""
    tables = read_tables(dataset, ["base"], cache=cache)
    grid = {"C": (1e-3, 1e-1)}
    plain = probe(dataset, tables, ProbeSpec(seeds=1, grid=grid))[0]
    final = probe(dataset, tables, ProbeSpec(seeds=1, grid=grid, final=True))[0]
    assert final.metrics == plain.metrics
    chosen = [search["chosen"] for search in plain.info["search"]]
    C = max(dict.fromkeys(chosen), key=chosen.count)
    assert final.info["final"] == {"videos": len(tables[0].id), "setting": {"C": C}}
    own = LinearProbe(C=C).fit(tables[0].X.mean(axis=1), tables[0].y)
    assert np.linalg.norm(final.head.coef_ - own.coef_) <= 3e-4 * np.linalg.norm(own.coef_)  # both within tol
    plain.write(tmp_path)
    run = final.write(tmp_path)  # the same settings: it replaces the run without a final head
    assert run.head()[1]["trained_on"] == {"videos": len(tables[0].id), "part": "all videos"}


def test_a_run_of_other_videos_is_not_replaced(dataset, cache, tmp_path) -> None:
    tables = read_tables(dataset, ["base"], cache=cache)
    spec = ProbeSpec(seeds=1, grid={"C": (1e-2,)})
    probe(dataset, tables, spec)[0].write(tmp_path)
    kept = np.arange(len(tables[0].id)) % 8 > 0
    columns = {name: getattr(tables[0], name)[kept] for name in ("id", "X", "y", "source")}
    fewer = [replace(tables[0], **columns)]
    with (
        pytest.raises(ActionVitError, match="exists"),
        reserved_runs(tmp_path, dataset, [PlannedRun(tables=fewer, spec=spec, tasks=plan(dataset, spec))]),
    ):
        pass
    with pytest.raises(ActionVitError, match="exists"):
        probe(dataset, fewer, spec)[0].write(tmp_path)
    with reserved_runs(tmp_path, dataset, [PlannedRun(tables=tables, spec=spec, tasks=plan(dataset, spec))]):
        pass


@pytest.mark.parametrize("sources", [8, 3])  # 3 are too few for the folds
def test_a_dataset_of_one_class_is_refused_as_such(tmp_path, sources: int) -> None:
    one = write_dataset(tmp_path / "one", classes=("clap",), sources=sources)
    write_store(tmp_path / "cache", one)
    with pytest.raises(ActionVitError, match="has one class, `clap`: a classifier needs at least two"):
        probe(one, read_tables(one, ["base"], cache=tmp_path / "cache"), ProbeSpec())


@pytest.mark.parametrize("encoding", ["latin-1", pytest.param("ascii", marks=pytest.mark.slow)])
def test_odd_names_print_on_terminals_that_are_not_utf8(tmp_path, encoding: str) -> None:
    named = write_dataset(tmp_path / "клипы", classes=("бег", "跳跃"))
    write_store(tmp_path / "features-cache", named)
    for arguments, printed in (
        (["probe", "клипы", "--run-name", "пробег", "--seeds", "1", "--head", "centroid"], "пробег"),
        (["cache", "ls"], "клипы"),
        (["report", "пробег"], "пробег"),
    ):
        command = [sys.executable, "-m", "actionvit", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment(PYTHONIOENCODING=encoding), capture_output=True)
        assert done.returncode == 0, (arguments, done.stderr)
        escaped = ascii(printed)[1:-1].encode()
        assert (printed.encode() if encoding == "ascii" else escaped) in done.stdout, "click writes UTF-8 for ASCII"
