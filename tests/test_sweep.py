"""`actionvit sweep` on real clips: its plan, its choice, and resuming after kills at the worst moments."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fake_runs import predictions, write
from forked_commands import ForkedCommands

from actionvit.commands.sweep import command
from actionvit.errors import ActionVitError
from actionvit.features.sampling import ClipSpec
from actionvit.features.timesformer.checkpoint import find_weights
from actionvit.features.timesformer.variants import gmac
from actionvit.pipeline.experiments.sweep_table import choose_per_split, nested_line
from actionvit.pipeline.experiments.tables import accuracy_by_cost, chosen_in_words
from actionvit.pipeline.runs import Run

SETTINGS = ("--variant", "tiny", "--num-frames", "2,4", "--size", "48,96", "--head", "linear,knn")
SPLITS = ("--protocol", "stratified", "--folds", "2", "--seeds", "1")


@pytest.fixture(scope="module")
def clips(sixty: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips of each of four classes."""
    root = tmp_path_factory.mktemp("drawn") / "some"
    for folder in sorted(path for path in sixty.iterdir() if path.is_dir() and list(path.glob("*.avi")))[:4]:
        (root / folder.name).mkdir(parents=True)
        for clip in sorted(folder.glob("*.avi"))[:5]:
            shutil.copy(clip, root / folder.name)
    return root


def arguments(root: Path, place: Path) -> list[str]:
    where = [
        "--cache",
        str(place / "cache"),
        "--output",
        str(place / "out"),
        "--flush-seconds",
        "0.1",
        "--workers",
        "1",
    ]
    return [str(root), "--format", "folder", *SETTINGS, *SPLITS, *where]


def sweep(root: Path, place: Path, *more: str) -> str:
    result = CliRunner().invoke(command, [*arguments(root, place), *more], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def files(place: Path) -> dict[str, bytes]:
    """The results that must not depend on interruptions."""
    kept = [place / "out" / "sweep.csv", *sorted(place.glob("out/runs/*/*"))]
    return {str(path.relative_to(place)): path.read_bytes() for path in kept if path.name != "run.json"}


@pytest.fixture(scope="module")
def whole(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    place = tmp_path_factory.mktemp("whole")
    return place, sweep(clips, place)


def test_the_plan_says_what_is_cached_and_what_the_rest_costs(clips, tmp_path) -> None:
    output = sweep(clips, tmp_path, "--dry-run")
    lines = re.findall(r"^  tiny-(\d)x(\d+) +([\d.]+) GMAC per video: 0 cached, 20 to embed", output, re.MULTILINE)
    shape = find_weights("tiny", None).config
    assert len(lines) == 4
    for frames, size, cost in lines:
        assert float(cost) == pytest.approx(gmac(shape, ClipSpec(num_frames=int(frames), size=int(size))), abs=0.005)
    total = sum(20 * float(cost) for *_, cost in lines)
    found = re.findall(r"to embed: ([\d,.]+) GMAC, about .+? to .+? of forward passes \(tiny-", output)
    assert [float(value) for value in found] == [pytest.approx(total, abs=1)]
    assert not list(tmp_path.rglob("*.h5"))
    assert not (tmp_path / "out").exists()


def test_it_ends_with_one_table_and_one_plot(whole) -> None:
    place, output = whole
    with (place / "out" / "sweep.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["frames"], row["size"], row["head"]) for row in rows] == [
        (frames, size, head)
        for frames, size in (("2", "48"), ("4", "48"), ("2", "96"), ("4", "96"))  # by cost
        for head in ("linear", "knn")
    ]
    for row in rows:
        run = place / "out" / "runs" / f"tiny-{row['frames']}x{row['size']}-{row['head']}-stratified"
        metrics = json.loads((run / "metrics.json").read_text())["summary"]["top1"]
        assert float(row["top1"]) == metrics["mean"]
        assert [float(row["top1_low"]), float(row["top1_high"])] == metrics["ci95"]
        search = json.loads((run / "run.json").read_text())["search"]
        assert float(row["inside"]) == pytest.approx(np.mean([max(one["scores"]) for one in search]), abs=1e-6)
        assert {one["criterion"] for one in search} == {"accuracy"}
    assert (place / "out" / "accuracy.png").stat().st_size > 5000
    nested = json.loads((place / "out" / "sweep.json").read_text())["about"]["nested"]
    assert set(nested["chosen"]) == {"stratified-1", "stratified-2"}
    assert f"Top-1 of this procedure: {100 * nested['summary']['top1']['mean']:.1f} %" in output


def test_where_nothing_can_be_judged_inside_it_says_so(clips: Path, whole: tuple[Path, str], tmp_path: Path) -> None:
    """Two sources: each training set has one. The rows are those of another dataset with the same files."""
    lines = ["path,label,split,source"]
    for path in sorted(clips.rglob("*.avi")):
        lines.append(f"{path},{path.parent.name},,film{int(path.name[-5], 36) % 2}")
    (tmp_path / "two.csv").write_text("\n".join(lines) + "\n")
    shutil.copytree(whole[0] / "cache", tmp_path / "cache")
    where = ["--cache", str(tmp_path / "cache"), "--output", str(tmp_path / "out"), "--workers", "1"]
    options = ["--variant", "tiny", "--num-frames", "2", "--size", "48", "--head", "linear", "--protocol", "grouped"]
    result = CliRunner().invoke(
        command, [str(tmp_path / "two.csv"), *options, "--folds", "2", "--seeds", "1", *where], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    assert "Inside the training sets nothing can be scored" in result.output


def test_rerun_computes_nothing_and_relabeling_only_probes(clips, whole, tmp_path) -> None:
    place = tmp_path / "copy"
    shutil.copytree(whole[0], place)
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.name in ("run.json", "metrics.json")}
    output = sweep(clips, place)
    assert output.count("20 cached, nothing to embed") == 4
    assert "to embed:" not in output
    assert {path: path.stat().st_mtime_ns for path in before} == before
    names = sorted(path.name for path in clips.iterdir())
    moved = tmp_path / "some"  # the same files, one of them under another class
    shutil.copytree(clips, moved)
    clip = sorted((moved / names[0]).iterdir())[0]
    (moved / names[1] / clip.name).write_bytes(clip.read_bytes())
    clip.unlink()
    output = sweep(moved, place, "--dataset-name", "some")
    assert output.count("20 cached, nothing to embed") == 0
    runs = [path for path in before if path.name == "run.json"]
    assert all(path.stat().st_mtime_ns != before[path] for path in runs)


def killed_when(forked: ForkedCommands, root: Path, place: Path, reached: Callable[[], bool]) -> None:
    """Start a sweep in a process of its own and kill it, by SIGKILL, once something is there."""
    process = forked.start(["sweep", *arguments(root, place)])
    deadline = time.monotonic() + 120
    try:
        while not reached():
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        os.kill(process, signal.SIGKILL)
        ended = forked.wait(process)
    assert ended.returncode == -signal.SIGKILL, "it ended before it was to be killed"


def test_killed_sweep_resumes_to_the_same_bytes(forked, clips, whole, tmp_path) -> None:
    killed_when(forked, clips, tmp_path, lambda: len(list(tmp_path.rglob("part-*.h5"))) >= 6)
    embedded = len(list(tmp_path.rglob("part-*.h5")))
    killed_when(forked, clips, tmp_path, lambda: len(list(tmp_path.glob("out/runs/tiny*/metrics.json"))) >= 3)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/runs/tiny*/run.json")}
    assert embedded >= 6
    assert 3 <= len(kept) < 8
    output = sweep(clips, tmp_path)
    assert output.count("20 cached, nothing to embed") == 4  # the second attempt embedded all, then was killed
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert files(tmp_path) == files(whole[0])


def test_a_video_that_fails_is_left_out_under_all_settings(clips, tmp_path) -> None:
    root = tmp_path / "some"
    shutil.copytree(clips, root)
    (next(path for path in sorted(root.iterdir())) / "broken.avi").write_bytes(b"RIFF no film")
    result = CliRunner().invoke(command, [*arguments(root, tmp_path), "--json"], catch_exceptions=False)
    assert result.exit_code == 3
    warning = json.loads(result.stdout)["warnings"][0]
    assert warning.startswith("1 video is left out: not decodable") and "/failures.csv)" in warning
    run = next((tmp_path / "out" / "runs").glob("*2x48-linear*"))
    coverage = json.loads((run / "run.json").read_text())["coverage"]
    assert (coverage["videos"], coverage["used"], coverage["failed"]) == (21, 20, 1)


def test_json_of_a_sweep_has_its_table_and_warnings(clips: Path, whole: tuple[Path, str], tmp_path: Path) -> None:
    root = tmp_path / "some"
    shutil.copytree(clips, root)
    shutil.copytree(whole[0], tmp_path / "place")
    (min(root.iterdir()) / "broken.avi").write_bytes(b"RIFF no film")
    runner, options = CliRunner(), [*arguments(root, tmp_path / "place"), "--json"]
    plan = json.loads(runner.invoke(command, [*options, "--dry-run"], catch_exceptions=False).stdout)
    assert [(setting["cached"], setting["to_embed"]) for setting in plan["settings"]] == [(20, 1)] * 4
    assert plan["gmac_to_embed"] == pytest.approx(sum(setting["gmac_per_video"] for setting in plan["settings"]))
    assert plan["seconds_to_embed"] is None and "tables" not in plan
    result = runner.invoke(command, options, catch_exceptions=False)
    assert result.exit_code == 3
    record = json.loads(result.stdout)
    assert record["folder"] == str(tmp_path / "place" / "out")
    assert record["tables"] == [json.loads((tmp_path / "place" / "out" / "sweep.json").read_text())]
    failures = [text for text in record["warnings"] if "/failures.csv)" in text]
    assert len(failures) == 4 and all(text.startswith("1 video is left out: not decodable") for text in failures)
    again = runner.invoke(command, options, catch_exceptions=False)  # nothing is left to embed
    assert again.exit_code == 3 and json.loads(again.stdout)["warnings"] == record["warnings"]


def test_an_impossible_setting_is_told_before_anything_is_done(clips, tmp_path) -> None:
    where = ["--cache", str(tmp_path / "cache"), "--output", str(tmp_path / "out")]
    with pytest.raises(ActionVitError, match="size: got 50, expected a multiple of the model's patch"):
        CliRunner().invoke(
            command, [str(clips), "--variant", "tiny", "--size", "48,50", *where], catch_exceptions=False
        )
    with pytest.raises(ActionVitError, match="--select-on: got `val`, but split grouped-1 has no validation set"):
        CliRunner().invoke(
            command,
            [str(clips), "--variant", "tiny", "--protocol", "grouped", "--folds", "2", "--select-on", "val", *where],
            catch_exceptions=False,
        )
    with pytest.raises(ActionVitError, match="the head `centroid` has no such setting"):
        CliRunner().invoke(
            command,
            [str(clips), "--variant", "tiny", "--head", "centroid", "--class-weight", "balanced", *where],
            catch_exceptions=False,
        )
    with pytest.raises(ActionVitError, match="choose fewer folds"):
        options = ["--variant", "tiny", "--protocol", "grouped", "--folds", "99"]
        CliRunner().invoke(command, [str(clips), *options, *where], catch_exceptions=False)
    result = CliRunner().invoke(command, [str(clips), "--num-frames", "4,x", *where])
    assert result.exit_code == 2
    assert "expected numbers of at least 1" in result.output
    assert not list(tmp_path.iterdir())


def noise_run(folder: Path, seed: int, splits: int = 5) -> Run:
    """A setting without signal: guesses of four classes; its inside scores are its test figures on the other folds."""
    found = predictions(clips=60, names=("a", "b", "c", "d"), skill=0.0, seed=seed, splits=splits)
    correct = found.scores.argmax(1) == found.true
    inside = {name: float(correct[found.split != name].mean()) for name in found.split_names}
    search = [{"split": name, "scores": [score], "scored": 48, "chosen": None} for name, score in inside.items()]
    return write(folder, found, info={"search": search})


def test_a_winner_chosen_per_split_gains_nothing_on_noise(tmp_path: Path) -> None:
    """Twelve settings that are all alike: the mean's winner gains points, the choice inside training sets none."""
    nested, best, average = [], [], []
    for world in range(12):
        runs = [noise_run(tmp_path / f"{world}-{number}", 100 * world + number) for number in range(12)]
        top1 = [run.metrics["summary"]["top1"]["mean"] for run in runs]
        choice = choose_per_split(runs, [1.0] * 12)
        assert choice is not None and set(choice.chosen) == set(runs[0].predictions.split_names)
        nested.append(choice.summary["top1"]["mean"])
        best.append(max(top1))
        average.append(np.mean(top1))
    assert np.mean(best) - np.mean(average) > 0.05
    assert np.mean(nested) - np.mean(average) < 0.02


def test_equal_settings_give_the_cheaper_and_unscored_ones_none(tmp_path: Path) -> None:
    run = noise_run(tmp_path / "one", 0)
    choice = choose_per_split([run, run], [2.0, 1.0])
    assert choice is not None and set(choice.chosen.values()) == {1}
    rows = [
        {"variant": "base", "frames": 8, "size": size, "head": "linear", "weighting": "none"} for size in (112, 224)
    ]
    line = nested_line(choice, rows)
    assert line.startswith("Chosen inside each training set: base 8×224, linear, none (5×). Top-1 of this procedure: ")
    unscored = dataclasses.replace(run, info={"search": [{"split": "official-1", "scores": [0.0], "scored": 0}]})
    assert choose_per_split([unscored], [1.0]) is None


def test_what_was_chosen_in_words() -> None:
    assert chosen_in_words({"parameter": "C", "chosen": 0.01}) == "C 0.01"
    assert chosen_in_words({"parameter": "epochs × queries", "chosen": {"epochs": 30, "queries": 4}}) == (
        "epochs 30, queries 4"
    )
    assert chosen_in_words({"parameter": "C", "chosen": None}) == ""


def test_the_plot_takes_a_single_setting(tmp_path) -> None:
    metric = {"mean": 0.7, "std": None, "ci95": [0.6, 0.8]}
    rows = [{"series": "base linear", "setting": "8×224", "GMAC": 196.0, "top1": metric}]
    assert accuracy_by_cost(rows, tmp_path / "one.png", x="GMAC", y="top1").stat().st_size > 5000
    (row,) = rows[:1]  # a single cost that rounds to a tick draws without a warning
    assert accuracy_by_cost([row | {"GMAC": 0.01}], tmp_path / "one.png", x="GMAC", y="top1").is_file()
