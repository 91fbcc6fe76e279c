"""`actionvit data`: its commands and their output."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner

from actionvit.cli import cli
from actionvit.pipeline.datasets.checking import histogram
from actionvit.pipeline.datasets.duplicates import near_duplicates


def run(*arguments: object):
    return CliRunner().invoke(cli, ["data", *map(str, arguments)])


def test_fetch_names_licence_and_paper_and_what_is_missing(tmp_path):
    with zipfile.ZipFile(tmp_path / "mirror.zip", "w") as opened:
        for number in range(3):
            opened.writestr(f"HMDB51/clap/S{number}_clap_u_nm_np1_fr_goo_0.avi", b"")
    to = tmp_path / "data" / "hmdb51"
    done = run("fetch", "hmdb51", "--output", to, "--from", tmp_path / "mirror.zip")
    assert done.exit_code == 0, done.output
    assert "Licence: CC BY 4.0" in done.stdout and "Kuehne" in done.stdout and "ICCV 2011" in done.stdout
    assert f"3 videos of 1 class in `{to}`" in done.stdout and f"actionvit extract {to}" in done.stdout
    assert "the complete set has 6,766 videos" in done.stderr
    again = run("fetch", "hmdb51", "--output", to)
    assert again.exit_code == 0 and "there already" in again.stdout


def test_draw_then_splits(sixty, tmp_path):
    shutil.copytree(sixty, tmp_path / "clips")
    next((tmp_path / "clips").glob("*/*.avi")).unlink()
    drawn = run("draw", tmp_path / "clips", "--count", 60)
    assert drawn.exit_code == 0 and "1 clip drawn, 71 already there" in drawn.stdout
    found = json.loads(run("splits", tmp_path / "clips", "--json").stdout)
    rows = {row["split"]: row for row in found["splits"]}
    assert found["sources_known"] and len(rows) == 3 + 5 + 5 + 5
    assert rows["official-1"]["train"] > rows["official-1"]["test"] > 0
    assert all(row["leaking"] == 0 for name, row in rows.items() if name.startswith(("official", "grouped")))
    assert all(row["leaking"] > 0 for name, row in rows.items() if name.startswith("stratified"))
    table = run("splits", tmp_path / "clips", "--protocol", "grouped", "--folds", 3).stdout
    assert [line.split()[0] for line in table.splitlines()[2:5]] == ["grouped-1", "grouped-2", "grouped-3"]


def test_splits_without_lists_are_the_others(tmp_path):
    for number in range(12):
        file = tmp_path / "set" / "ab"[number % 2] / f"{number}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    done = run("splits", tmp_path / "set")
    assert done.exit_code == 0 and "official" not in done.stdout and "random-5" in done.stdout
    assert "note: file names give no sources" in done.stderr


def encode_anew(source: Path, target: Path) -> None:
    """Encode a video again: half its size, another codec, much coarser."""
    with av.open(str(source)) as read, av.open(str(target), "w") as written:
        stream = written.add_stream("libx264", rate=25, options={"crf": "32"})
        stream.width, stream.height = read.streams.video[0].width // 2, read.streams.video[0].height // 2
        for number, frame in enumerate(read.decode(video=0)):
            small = frame.reformat(stream.width, stream.height, format="yuv420p")
            small.pts, small.time_base = number, Fraction(1, 25)
            written.mux(stream.encode(small))
        written.mux(stream.encode(None))


@pytest.fixture(scope="module")
def planted(sixty, tmp_path_factory):
    """Twelve drawn clips in a list, half in the test set; a copy, a re-encoded, a shortened and an unreadable one."""
    root = tmp_path_factory.mktemp("planted")
    clips = sorted(sixty.rglob("*.avi"))[::6]
    assert len(clips) == 12
    rows = []
    for number, clip in enumerate(clips):
        shutil.copy(clip, root / f"{number:02}.avi")
        rows.append((f"{number:02}.avi", "ab"[number % 2], "train" if number < 6 else "test", f"film{number}"))
    shutil.copy(root / "00.avi", root / "copy.avi")
    encode_anew(root / "01.avi", root / "anew.mp4")
    data = (root / "02.avi").read_bytes()
    (root / "short.avi").write_bytes(data[: -len(data) // 8])
    (root / "none.avi").write_text("not a video")
    rows += [
        ("copy.avi", "a", "test", "film0"),
        ("anew.mp4", "b", "test", "other"),
        ("short.avi", "a", "train", "film2"),
    ]
    rows.append(("none.avi", "b", "train", "film99"))
    lines = [",".join(row) for row in (("path", "label", "split", "source"), *rows)]
    (root / "list.csv").write_text("\n".join(lines) + "\n")
    return root


def test_check_finds_copies_leaks_and_what_is_broken(planted):
    done = run("check", planted / "list.csv", "--decode", "--json", "--workers", 2)
    assert done.exit_code == 3, done.output
    found = json.loads(done.stdout)
    assert (found["format"], found["videos"], found["classes"]) == ("csv", 16, {"a": 8, "b": 8})
    assert [(one["train"], one["test"], one["leaking_sources"]) for one in found["splits"]] == [(8, 8, ["film0"])]
    assert [group["ids"] for group in found["identical"] if group["splits"]] == [["00.avi", "copy.avi"]]
    assert [pair["ids"] for pair in found["look_alikes"] if pair["splits"]] == [["01.avi", "anew.mp4"]]
    # A shortened video shows something else at the same eight places.
    assert len(found["identical"]) == len(found["look_alikes"]) == 1
    assert [(one["id"], one["reason"]) for one in found["undecodable"]] == [("none.avi", "not_video")]
    assert list(found["flagged"]) == ["short.avi"] and "truncated" in found["flagged"]["short.avi"]
    assert found["decoded"] == 15 and found["pictures"] == {"160 × 120": 14, "80 × 60": 1}
    for name, count in (("frames", 15), ("seconds", 15), ("megabytes", 16)):
        assert sum(one["count"] for one in found[name]) == count


def test_check_prints_its_findings(planted):
    done = run("check", planted / "list.csv", "--decode", "--workers", 2)
    assert done.exit_code == 3
    for words in (
        "list: csv, 16 videos of 2 classes, 14 sources",
        "official-1: 8 train, 8 test, film0 in both",
        "15 decode, 1 do not, 1 are damaged but usable",
        "Seconds per video",
        "none.avi: not_video: no container that FFmpeg knows as video",
        "1 group of equal files, 1 in both training and test set of a split",
        "00.avi = copy.avi (official-1)",
        "1 pair of look-alikes, 1 in both training and test set of a split",
        "01.avi = anew.mp4 (official-1)",
    ):
        assert words in done.stdout, done.stdout


def test_check_without_decoding_opens_no_video(planted, monkeypatch):
    monkeypatch.setattr("actionvit.pipeline.datasets.checking.decode_stream", None)
    done = run("check", planted / "list.csv")
    assert done.exit_code == 0, done.output
    assert "00.avi = copy.avi (official-1)" in done.stdout and "of look-alikes" not in done.stdout
    assert "Frames per video" not in done.stdout and "--decode also" in done.stdout


def test_check_explains_what_was_read(planted, tmp_path):
    assert "class a, source" not in run("check", planted / "list.csv").stdout
    done = run("check", planted / "list.csv", "-v")
    assert done.output.count("read as a table with a header: 16 videos, 2 classes, 1 official split") == 1
    assert "read as a table with a header: 16 videos, 2 classes, 1 official split" in done.stdout
    assert f"from {planted / 'list.csv'}" in done.stdout
    assert "train: 00.avi, class a, source film0" in done.stdout and done.stdout.count("  test: ") == 3
    assert "in training under the same class" in done.stdout
    assert "note:" not in done.stderr


def test_check_of_many_equal_files_is_bounded(tmp_path):
    for number in range(8000):
        file = tmp_path / "set" / "ab"[number % 2] / f"{number}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    done = run("check", tmp_path / "set", "--json")
    assert done.exit_code == 0, done.output
    [group] = json.loads(done.stdout)["identical"]
    assert len(group["ids"]) == 8000 and group["splits"]


def test_quiet_prints_no_notes(planted):
    done = run("splits", planted / "list.csv", "-q")
    assert done.exit_code == 0 and done.stderr == "" and "official-1" in done.stdout


def test_only_two_notes_are_printed_before_other_commands(real_data):
    done = run("splits", real_data / "jhmdb21", "--protocol", "official")
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert len(notes) == 3 and "more; `actionvit data check` lists all" in notes[-1]
    assert all(len(note) < 120 for note in notes)


def test_check_starts_without_loading_scikit_learn(tmp_path):
    for name in ("a/1.mp4", "a/2.mp4", "b/3.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    code = (
        "import sys\n"
        "from actionvit.cli import main\n"
        "try:\n"
        "    main(['data', 'check', sys.argv[1]])\n"
        "finally:\n"
        "    print({'sklearn', 'scipy', 'torch'} & set(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert "seeds" in done.stdout and done.stderr.splitlines()[-1] == "set()"


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii", "utf-8"])
def test_terminals_of_any_encoding_are_printed_on(tmp_path, encoding):
    for name in ("клас/1.mp4", "клас/2.mp4", "plain/3.mp4"):
        file = tmp_path / "set" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    command = [sys.executable, "-m", "actionvit", "data", "check", str(tmp_path / "set")]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    whole = encoding in ("ascii", "utf-8")  # click writes UTF-8 where a stream claims to be ASCII
    text = done.stdout.decode("utf-8" if whole else encoding)
    assert ("клас" if whole else r"\u043a\u043b\u0430\u0441") in text and ("█" if whole else "###") in text


def test_impossible_splits_do_not_stop_the_others(tmp_path):
    lines = ["path,label,split,source"]
    for number in range(8):
        (tmp_path / f"{number}.avi").touch()
        lines.append(f"{number}.avi,{'ab'[number % 2]},,film")
    (tmp_path / "one.csv").write_text("\n".join(lines) + "\n")
    done = run("splits", tmp_path / "one.csv", "--folds", "2")
    assert done.exit_code == 0, done.output
    assert (
        "stratified-1" in done.stdout
        and "no grouped splits: dataset `one`: all videos are of one source" in done.stderr
    )
    assert run("splits", tmp_path / "one.csv", "--protocol", "grouped").exit_code == 1
    alone = tmp_path / "alone" / "hop"
    alone.mkdir(parents=True)
    (alone / "1.avi").touch()
    assert run("splits", tmp_path / "alone").exit_code == 1, "none at all is an error"


def test_check_without_lists_uses_the_default_splits(sixty):
    plan = "grouped: 5 folds × 5 seeds = 25 splits; the first 5:\ngrouped-1: "
    assert plan in run("check", sixty, "--format", "folder").stdout
    found = json.loads(run("check", sixty, "--format", "folder", "--json").stdout)
    assert [one["name"] for one in found["splits"]] == [f"grouped-{number}" for number in range(1, 6)]
    assert not any(one["leaking_sources"] for one in found["splits"])


@pytest.mark.slow
def test_official_splits_of_real_clips_have_no_look_alikes(real_data):
    options = ("--splits-dir", real_data / "hmdb51_splits", "--decode", "--json")
    done = run("check", real_data / "jhmdb21", *options)
    found = json.loads(done.stdout)
    assert done.exit_code == 0 and found["decoded"] == 523 and not found["flagged"]
    assert found["pictures"] == {"320 × 240": 523} and found["shorter"] == {"8": 0, "16": 7}
    alike = found["identical"] + found["look_alikes"]
    assert alike and all(pair["same_source"] and not pair["splits"] for pair in alike)


def test_near_duplicates_are_all_pairs_within_the_limit():
    random = np.random.RandomState(0)
    hashes = list(random.rand(1100, 504) < 0.5)
    hashes[1090] = hashes[3] ^ (np.arange(504) < 50)
    hashes[700] = hashes[600] ^ (np.arange(504) < 70)
    assert [(i, j) for i, j, _ in near_duplicates(hashes, 0.1)] == [(3, 1090)]
    assert [(i, j, round(504 * share)) for i, j, share in near_duplicates(hashes, 0.15)] == [
        (3, 1090, 50),
        (600, 700, 70),
    ]
    assert list(near_duplicates([])) == []


def test_a_histogram_counts_every_value_once():
    assert [(one.low, one.high, one.count) for one in histogram([3, 3, 3])] == [(3, 3, 3)]
    assert [(one.low, one.high, one.count) for one in histogram([4, 2, 4])] == [(2, 2, 1), (3, 3, 0), (4, 4, 2)]
    bins = histogram([0, 1, 2, 3, 4, 8], bins=4)
    assert [(one.low, one.high, one.count) for one in bins] == [(0, 2, 2), (2, 4, 2), (4, 6, 1), (6, 8, 1)]
    assert histogram([]) == []
