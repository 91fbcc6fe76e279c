"""Every dataset format, on drawn clips in the layouts of the real datasets; and files that must be refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import get_args

import av
import pytest
from click.testing import CliRunner
from dataset_trees import CLASSES, TREES, clips, pixels, put, write

from actionvit.cli import cli
from actionvit.commands.dataset_options import FORMATS
from actionvit.errors import ActionVitError
from actionvit.features.decoding.policy import DecodePolicy
from actionvit.features.decoding.pool.messages import Decoded, DecodeRequest
from actionvit.features.decoding.pool.supervisor import decode_stream
from actionvit.features.sampling import ClipSpec
from actionvit.pipeline.datasets import load_dataset, make_splits
from actionvit.pipeline.datasets.dataset import Format
from actionvit.pipeline.datasets.loading import reload
from actionvit.pipeline.datasets.textfile import read_text

OFFICIAL = {
    "ucf101": [(8, 0, 4)] * 3,
    "mmaction2": [(8, 4, 0)],
    "videomae": [(8, 2, 2)],
    "rawframes": [(8, 4, 0)],
    "kinetics": [(8, 4, 0)],
    "ssv2": [(8, 4, 0)],
    "diving48": [(8, 0, 4)],
    "jester": [(8, 4, 0)],
    "videofolder": [(8, 4, 0)],
    "videofolder-jsonl": [(8, 4, 0)],
    "split-folders": [(8, 0, 4)],
    "tsv": [(8, 0, 4)] * 3,
}
NAMES = {
    "ucf101": ("Grow", "MoveLeft"),
    "videomae": ("0", "1"),
    "rawframes": ("0", "1"),
    "unlabeled": (),
    "ssv2": ("Growing something", "Moving something left"),
    "diving48": ("Back 15som 05Twis FREE", "Inward 25som"),
    "jester": ("Swiping Left", "Zooming In With Full Hand"),
}


@pytest.fixture(scope="session")
def trees(tmp_path_factory) -> dict[str, Path]:
    """ROOT of each format's tree; not to be written to."""
    folder = tmp_path_factory.mktemp("trees")
    return {name: make(folder / name) for name, (make, _) in TREES.items()}


def copy_of(root: Path, tmp_path: Path) -> Path:
    """A copy of the tree that ROOT, a file or folder, lies in."""
    top = root if root.is_dir() else root.parent
    shutil.copytree(top, tmp_path / top.name)
    return tmp_path / top.name / root.relative_to(top)


def error(root: Path, **options) -> str:
    with pytest.raises(ActionVitError) as caught:
        load_dataset(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", TREES)
def test_format_is_detected_and_read(trees, name):
    dataset = load_dataset(trees[name])
    assert dataset.format == TREES[name][1]
    assert len(dataset.videos) == 12 and all(video.path.exists() for video in dataset.videos)
    assert dataset.class_names == NAMES.get(name, tuple(sorted(CLASSES)))
    assert [(len(s.train), len(s.val), len(s.test)) for s in dataset.official] == OFFICIAL.get(name, [])
    assert dataset.summary.startswith("read as ") and "12 videos" in dataset.summary
    if dataset.class_names:
        per_class = [video.label for video in dataset.videos]
        assert {per_class.count(label) for label in dataset.class_names} == {6}
        assert dataset.y.tolist() == [dataset.class_names.index(label) for label in per_class]


@pytest.mark.parametrize("name", TREES)
def test_forced_format_reads_the_same(trees, name):
    dataset = load_dataset(trees[name])
    assert load_dataset(trees[name], format=dataset.format).videos == dataset.videos


@pytest.mark.parametrize("name", TREES)
def test_recorded_dataset_is_read_again(trees, name):
    dataset = load_dataset(trees[name])
    again = reload(json.loads(json.dumps({"dataset": dataset.name, **dataset.record})))
    assert {video.id: video.label for video in again.videos} == {video.id: video.label for video in dataset.videos}


@pytest.mark.parametrize("name", TREES)
def test_format_is_extracted_and_probed(trees, name, tmp_path):
    """Through the command line, on the tree's own sets."""
    where = ["--cache", tmp_path / "cache"]
    without_test = [test for _, _, test in OFFICIAL.get(name, [])] == [0]
    options = ["--test-split", "val"] if without_test else []
    small = ["--num-frames", 2, "--size", 32, "--workers", 0]
    done = run("extract", trees[name], "--variant", "tiny", *small, *where, *options)
    assert done.exit_code == 0, done.output
    assert f"read as {load_dataset(trees[name]).description}" in done.stderr
    probe = ["--variant", "tiny", *where, "--runs", tmp_path / "runs", *options, "--json"]
    probe += [] if OFFICIAL.get(name) else ["--folds", 2]
    done = run("probe", trees[name], *probe)
    if name == "unlabeled":
        assert done.exit_code == 1 and "no labels" in done.output
        return
    assert done.exit_code == 0, done.output
    [run_json] = (tmp_path / "runs").rglob("run.json")
    assert json.loads(run_json.read_text())["dataset"]["test_set"] == ("val" if without_test else "test")


def run(*arguments: object):
    return CliRunner().invoke(cli, list(map(str, arguments)))


def test_lists_are_named_per_set(trees, tmp_path):
    root = copy_of(trees["mmaction2"], tmp_path)
    lists = {"train": tmp_path / "a.txt", "validation": tmp_path / "b.txt"}
    shutil.move(root / "drawn_train_list_videos.txt", lists["train"])
    shutil.move(root / "drawn_val_list_videos.txt", lists["validation"])
    dataset = load_dataset(root, lists=lists)
    assert [(len(s.train), len(s.val)) for s in dataset.official] == [(8, 4)]
    assert {video.id for video in dataset.videos} == {video.id for video in load_dataset(trees["mmaction2"]).videos}
    given = [f"--list={name}={file}" for name, file in lists.items()]
    done = run("data", "splits", root, *given, "--test-split", "val", "--protocol", "official")
    assert done.exit_code == 0 and "official-1" in done.stdout, done.output
    assert "expected SPLIT=FILE" in run("data", "splits", root, "--list", "a.txt").output
    assert "expected train, val or test" in error(root, lists={"holdout": lists["train"]})
    assert "no file" in error(root, lists={"train": tmp_path / "gone.txt"})


@pytest.mark.parametrize("name", ["training", "TRAIN", "train"])
@pytest.mark.parametrize("other", ["val", "valid", "validation", "validate", "dev", "test", "testing"])
def test_split_names_in_use_are_read(tmp_path, name, other):
    lines = ["path,label,split"]
    for number, _, label, in_set in clips():
        (tmp_path / f"{number}.mp4").touch()
        lines.append(f"{number}.mp4,{label},{name if in_set == 'train' else other}")
    [split] = load_dataset(write(tmp_path / "list.csv", lines)).official
    assert (len(split.train), len(split.val), len(split.test)) == ((8, 0, 4) if "test" in other else (8, 4, 0))


def test_without_a_test_set_probing_needs_the_validation_set(trees):
    dataset = load_dataset(trees["mmaction2"])
    assert dataset.notes[0].startswith("no test set, but 8 training videos and 4 validation videos: test_split=val")
    with pytest.raises(ActionVitError, match="has no test set; give test_split=val"):
        make_splits(dataset, "official")
    scored = load_dataset(trees["mmaction2"], test_split="val")
    [split] = make_splits(scored, "official")
    assert scored.test_set == "val" and len(split.test) == 4 and not split.val
    assert "has no validation set" in error(trees["diving48"], test_split="val")


DOCS = Path(__file__).resolve().parents[1] / "docs" / "how-to" / "own-data.md"


def docs_table() -> list[tuple[str, str, str]]:
    """Example, command and format of each row in the table of formats."""
    rows = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if "`actionvit extract " in line]
    cells = [[cell.strip() for cell in re.split(r"(?<!`)\s*\|\s*", row.strip("|"))] for row in rows]
    return [(example.strip("`"), command.strip("`"), form.strip("`")) for _, example, command, form in cells]


@pytest.mark.parametrize(("example", "command", "form"), docs_table())
def test_row_of_the_docs_table(trees, sixty, example, command, form, monkeypatch, tmp_path):
    """The command of each row, on the tree of that name, whose files hold the example line or path."""
    folder = next(iter(trees.values())).parents[1]
    name = command.split()[2].partition("/")[0]
    if name == "hmdb51":
        folder = tmp_path
        (tmp_path / name).symlink_to(sixty)
    monkeypatch.chdir(folder)
    arguments = command.split()[2:]
    done = run("data", "check", *arguments, "--json")
    assert done.exit_code == 0, done.output
    findings = json.loads(done.stdout)
    assert findings["format"] == form and findings["videos"] >= 12
    if name == "hmdb51":
        assert findings["splits"][0]["name"] == "official-1"
        return
    texts = [
        read_text(file) for file in Path(name).rglob("*") if file.suffix in (".txt", ".csv", ".tsv", ".json", ".jsonl")
    ]
    assert (Path(name) / example).exists() or any(example in text for text in texts)


def test_docs_table_has_every_format():
    assert {form for _, _, form in docs_table()} == set(get_args(Format))
    named = " ".join(command for _, command, _ in docs_table())
    assert all(name in named for name in TREES)


def test_hyper_parameters_are_chosen_on_the_validation_set(trees, tmp_path):
    """By scores on its rows alone, and never on the test set, which may be replaced without another choice."""
    small = ("--num-frames", 2, "--size", 32, "--workers", 0)
    where = ("--cache", tmp_path / "cache", "--runs", tmp_path / "runs")
    assert run("extract", trees["videomae"], "--variant", "tiny", *small, *where[:2]).exit_code == 0
    done = run("probe", trees["videomae"], "--variant", "tiny", *where, "--select-on", "val", "--json")
    assert done.exit_code == 0, done.output
    [record] = (tmp_path / "runs").rglob("run.json")
    info = json.loads(record.read_text())
    assert "select-on-val" in record.parent.name and info["spec"]["select_on"] == "val"
    assert all(search["by"] == "validation set" and search["scored"] == 2 for search in info["search"])
    done = run("probe", trees["diving48"], "--variant", "tiny", *small[:4], "--select-on", "val", *where)
    assert done.exit_code == 1


def test_epoch_and_setting_are_chosen_on_the_validation_set(trees, tmp_path):
    small = ("--variant", "tiny", "--num-frames", 2, "--size", 32, "--workers", 0, "--cache", tmp_path / "cache")
    runs = ("--runs", tmp_path / "runs", "--epochs", 1, "--crops", 1, "--no-augment", "--val-fraction", 0.5)
    done = run("finetune", trees["videomae"], *small, *runs, "--select-on", "val", "--device", "cpu", "--json")
    assert done.exit_code == 0, done.output
    [entry] = json.loads(done.stdout)["search"]
    assert entry["by"] == "validation set" and "--val-fraction does nothing with --select-on val" in done.stderr
    assert "select-on-val" in json.loads(done.stdout)["run"]
    done = run("sweep", trees["videomae"], *small, "--num-frames", 4, "--select-on", "val", "-o", tmp_path / "sweep")
    assert done.exit_code == 0 and "Chosen on the validation set: tiny 2×32" in done.stdout, done.output


def test_report_names_the_set_it_was_scored_on(trees, tmp_path):
    where = ("--cache", tmp_path / "cache")
    small = ("--num-frames", 2, "--size", 32, "--workers", 0)
    assert run("extract", trees["mmaction2"], "--variant", "tiny", *small, *where).exit_code == 0
    probe = ("--variant", "tiny", *where, "--runs", tmp_path / "runs", "--test-split", "val")
    done = run("probe", trees["mmaction2"], *probe)
    assert done.exit_code == 0 and "scored on the validation set (val)" in done.stdout, done.output
    [record] = (tmp_path / "runs").rglob("run.json")
    done = run("report", record.parent, "-o", tmp_path / "report")
    assert done.exit_code == 0, done.output
    texts = [
        path.read_text(encoding="utf-8")
        for path in (tmp_path / "report").rglob("*")
        if path.suffix in (".html", ".md", ".tex")
    ]
    assert len(texts) >= 3 and all("validation set (val)" in text for text in texts)

    done = run("probe", trees["mmaction2"], *probe, "--protocol", "grouped", "--folds", 2)  # which ignores the sets
    assert done.exit_code == 0 and "scored on the validation set" not in done.stdout, done.output
    [record] = (path for path in (tmp_path / "runs").rglob("run.json") if "grouped" in path.read_text("utf-8"))
    done = run("report", record.parent, "-o", tmp_path / "grouped")
    assert done.exit_code == 0, done.output
    assert "cored on the validation set" not in (tmp_path / "grouped" / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        *((".mpg", "mpeg1video"), (".mpeg", "mpeg2video"), (".m4v", "mpeg4"), (".flv", "flv"), (".wmv", "wmv2")),
        *((".ts", "mpeg2video"), (".3gp", "mpeg4"), (".mov", "mpeg4"), (".MKV", "mpeg4"), (".vob", "mpeg2video")),
    ],
)
def test_containers_in_use_are_found_and_decoded(tmp_path, suffix, codec):
    file = tmp_path / "set" / "grow" / f"a{suffix}"
    file.parent.mkdir(parents=True)
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for picture in pixels(1, "grow"):
            frame = av.VideoFrame.from_ndarray(picture.repeat(2, 0).repeat(2, 1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    [video] = load_dataset(tmp_path / "set").videos
    requests = [DecodeRequest(video.id, video.path, (ClipSpec(num_frames=2, size=32),))]
    [decoded] = decode_stream(requests, policy=DecodePolicy(), workers=0, timeout=60)
    assert isinstance(decoded, Decoded), decoded


# Ambiguous files are refused.


def test_kinetics_videos_without_their_list_are_refused(trees, tmp_path):
    root = copy_of(trees["kinetics"], tmp_path)
    shutil.rmtree(root / "annotations")
    message = error(root)
    assert "`test`, `train`, `val`" in message and "called like a set" in message and "format=folder" in message
    assert load_dataset(root, format="folder").class_names == ("test", "train", "val")


def test_class_called_like_a_set_beside_classes_is_refused(tmp_path):
    for name in ("clap", "test"):
        put(tmp_path / "set" / name / "1.mp4", 1, "grow")
    assert "`test`" in error(tmp_path / "set")


def test_single_class_is_noted_before_extraction(tmp_path):
    put(tmp_path / "set" / "rgb" / "1.mp4", 1, "grow")
    dataset = load_dataset(tmp_path / "set")
    assert any("all videos are of one class, `rgb`: check root=" in note for note in dataset.notes)
    done = run("data", "splits", tmp_path / "set")
    assert "all videos are of one class" in done.stderr


def test_unread_list_beside_class_folders_is_noted(tmp_path):
    for label in CLASSES:
        put(tmp_path / "set" / label / "1.mp4", 1, "grow")
    write(tmp_path / "set" / "train.csv", ["elsewhere/1.mp4 0"])
    notes = load_dataset(tmp_path / "set").notes
    assert any("1 list file in" in note and "`train.csv`" in note and "lists=" in note for note in notes)


def test_numbers_without_names_are_noted_and_names_read(trees, tmp_path):
    root = copy_of(trees["videomae"], tmp_path)
    assert any("labels are numbers without names (2 classes)" in note for note in load_dataset(root).notes)
    write(root.parent / "classes.txt", ["left", "grow"])
    assert load_dataset(root).class_names == ("grow", "left")


def test_numbers_from_one_do_not_shift_the_names(trees, tmp_path):
    root = copy_of(trees["videomae"], tmp_path)
    for file in root.parent.glob("*.csv"):
        write(file, [f"{line[:-1]}{int(line[-1]) + 1}" for line in file.read_text().splitlines()])
    write(root.parent / "classes.txt", ["left", "grow"])
    assert "label 2 has no name in" in error(root)
    write(root.parent / "classes.txt", ["1 left", "2 grow"])
    assert load_dataset(root).class_names == ("grow", "left")


def test_listed_videos_not_on_disk_are_counted_and_named(trees, tmp_path):
    root = copy_of(trees["slowfast"], tmp_path)
    for number in (0, 2):
        next(root.parent.glob(f"clips/{number},*")).unlink()
    message = error(root)
    assert "line 1: no video `clips/0, move_left.mp4`" in message and "(2 paths missing)" in message
    dataset = load_dataset(root, skip_missing=True)
    assert len(dataset.videos) == 10
    assert any(note.startswith("2 listed videos not on disk: `clips/0, move_left.mp4`") for note in dataset.notes)
    kinetics = load_dataset(trees["kinetics"])
    assert any(note.startswith("1 listed video not on disk: `gone0000000_000001_") for note in kinetics.notes)


def test_duplicates_and_contradictions_are_refused(trees, tmp_path):
    root = copy_of(trees["slowfast"], tmp_path)
    lines = root.read_text().splitlines()
    write(root, [*lines, lines[0]])
    assert "line 13: `clips/0, move_left.mp4` is already in line 1" in error(root)
    both = copy_of(trees["mmaction2"], tmp_path)
    train, val = both / "drawn_train_list_videos.txt", both / "drawn_val_list_videos.txt"
    write(val, [*val.read_text().splitlines(), train.read_text().splitlines()[0]])
    assert "is already in `drawn_train_list_videos.txt` line 1" in error(both)
    folders = load_dataset(trees["split-folders"])
    assert not {*folders.official[0].train} & {*folders.official[0].test}


def test_paths_outside_the_root_are_noted(tmp_path):
    put(tmp_path / "far" / "1.mp4", 1, "grow")
    put(tmp_path / "near" / "2.mp4", 2, "grow")
    file = write(tmp_path / "near" / "list.csv", ["path,label", "../far/1.mp4,a", "2.mp4,b"])
    dataset = load_dataset(file)
    assert [video.id for video in dataset.videos] == ["../far/1.mp4", "2.mp4"]
    assert any(note.startswith("1 video outside `") and "`../far/1.mp4`" in note for note in dataset.notes)
    absolute = write(tmp_path / "near" / "absolute.csv", ["path,label", f"{tmp_path}/far/1.mp4,a", "2.mp4,b"])
    assert any(note.startswith("1 video outside `") for note in load_dataset(absolute).notes)


@pytest.mark.parametrize("url", ["http://host/1.mp4", "s3://bucket/1.mp4", "https://youtu.be/x"])
def test_urls_are_refused_with_the_remedy(tmp_path, url):
    file = write(tmp_path / "list.csv", ["path,label", f"{url},a"])
    assert "line 2" in error(file) and "is a URL; download the video" in error(file)
    assert "is a URL" in error(write(tmp_path / "list.txt", [f"{url} 0"]))


def test_devices_and_fifos_are_refused_in_lists(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    put(tmp_path / "1.mp4", 1, "grow")
    for path in ("pipe.mp4", "/dev/zero"):
        file = write(tmp_path / "list.csv", ["path,label", "1.mp4,a", f"{path},b"])
        assert "neither a file nor a folder (a device, FIFO or socket)" in error(file)
    os.mkfifo(tmp_path / "fifo.csv")
    assert "not a regular file" in error(tmp_path / "fifo.csv")


def test_devices_and_fifos_are_passed_over_in_folders(tmp_path):
    for label in CLASSES:
        put(tmp_path / "set" / label / "1.mp4", 1, "grow")
    os.mkfifo(tmp_path / "set" / "grow" / "2.mp4")
    (tmp_path / "set" / "grow" / "3.mp4").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "set" / "train.csv")
    dataset = load_dataset(tmp_path / "set")
    assert [video.id for video in dataset.videos] == ["grow/1.mp4", "move_left/1.mp4"]
    assert "2 entries ignored, no video: `grow/2.mp4`, `grow/3.mp4`" in dataset.notes


def test_header_of_unknown_columns_is_not_a_video(tmp_path):
    put(tmp_path / "1.mp4", 1, "grow")
    message = error(write(tmp_path / "list.csv", ["clip_id,gesture", "1.mp4,a"]))
    assert "line 1: no video `clip_id`" in message and "call its columns path,label" in message


def test_lines_of_another_form_are_refused(tmp_path):
    put(tmp_path / "1.mp4", 1, "grow")
    put(tmp_path / "2.mp4", 2, "grow")
    assert "line 2: `2.mp4`; expected `path label`" in error(write(tmp_path / "a.txt", ["1.mp4 0", "2.mp4"]))
    assert "lists no video" in error(write(tmp_path / "b.txt", []))
    (tmp_path / "c.json").write_text('{"a": 1}')
    assert "JSON list of an unknown set" in error(tmp_path / "c.json")


def test_broken_json_lists_are_named(trees, tmp_path):
    root = copy_of(trees["ssv2"], tmp_path)
    file = root / "labels" / "train.json"
    file.write_text(file.read_text()[:-20])
    assert "train.json` is not JSON" in error(root)
    file.write_text('[{"id": "1000", "template": "a"}, 7]')
    assert "record 2: `7`; expected a video's id" in error(root)


def test_deeply_nested_json_is_refused(trees, tmp_path):
    root = copy_of(trees["diving48"], tmp_path)
    (root / "Diving48_V2_train.json").write_text('[{"vid_name":' + "[" * 100_000)
    assert "is not JSON" in error(root)


# Text files as users and their programs write them.


@pytest.mark.parametrize(("encoding", "end"), [("utf-8", "\r"), ("utf-8-sig", "\r\n"), ("utf-16", "\n")])
@pytest.mark.parametrize("name", ["mmaction2", "ucf101", "tsv", "jester"])
def test_text_files_of_any_editor_read_the_same(trees, tmp_path, name, encoding, end):
    root = copy_of(trees[name].parent if name == "ucf101" else trees[name], tmp_path)
    top = root if root.is_dir() else root.parent
    for file in (*top.rglob("*.txt"), *top.rglob("*.csv"), *top.rglob("*.tsv")):
        write(file, read_text(file).splitlines(), end=end, encoding=encoding)
    again = load_dataset(root / "UCF-101" if name == "ucf101" else root)
    before = load_dataset(trees[name])
    assert [video.label for video in again.videos] == [video.label for video in before.videos]
    assert again.official == before.official


def test_settings_file_with_a_byte_order_mark_is_read(trees, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path("actionvit.toml"), [f'root = "{trees["diving48"]}"'], end="\r\n", encoding="utf-8-sig")
    done = run("data", "splits")
    assert done.exit_code == 0 and "official-1" in done.stdout, done.output


def test_hidden_lists_of_a_mac_are_passed_over(trees, tmp_path):
    mac = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(range(256))
    for name in ("mmaction2", "kinetics", "videofolder", "ssv2"):
        root = copy_of(trees[name], tmp_path)
        for file in [*root.rglob("*.txt"), *root.rglob("*.csv"), *root.rglob("*.json")]:
            file.with_name(f"._{file.name}").write_bytes(mac)
        assert load_dataset(root).official == load_dataset(trees[name]).official


def test_long_blank_lines_do_not_cost_time(tmp_path):
    put(tmp_path / "set" / "grow" / "1.avi", 1, "grow")
    write(tmp_path / "set" / "splits" / "grow_test_split1.txt", ["a" + " " * 40_000 + "b"])
    start = time.process_time()
    assert "expected `NAME.avi CODE`" in error(tmp_path / "set")
    assert time.process_time() - start < 1


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    """A list of 100,000 rows whose videos are links to one file."""
    root = tmp_path_factory.mktemp("wide")
    for folder in range(100):
        (root / f"{folder:03}").mkdir()
        first = root / f"{folder:03}" / "0000.mp4"
        first.write_bytes(b"x" * 100)
        for number in range(1, 1000):
            os.link(first, root / f"{folder:03}" / f"{number:04}.mp4")
    lines = (f"{row // 1000:03}/{row % 1000:04}.mp4 {row % 400}" for row in range(100_000))
    return write(root / "all.txt", lines)


@pytest.mark.timing
def test_100_000_rows_are_read_in_time_and_memory(wide):
    import subprocess
    import sys

    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from actionvit.features.store.keys import FeatureKey\n"
        "from actionvit.features.store.plan import make_plan\n"
        "from actionvit.features.store.store import FeatureStore\n"
        "from actionvit.pipeline.datasets import load_dataset\n"
        "dataset = load_dataset(Path(sys.argv[1]))\n"
        "key = dict(weights='w', model={}, clip={}, preprocessing={}, decoder='d', precision='p')\n"
        "folder = Path(sys.argv[1]).parent / 'store'\n"
        "key = FeatureKey(**key, outputs={}, schema=1)\n"
        "store = FeatureStore.open_or_new(folder, key=key, dataset='d', variant='v')\n"
        "plan = make_plan(store, [(video.id, video.path) for video in dataset.videos])\n"
        "assert len(dataset.videos) == len(plan.missing) == 100_000\n"
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1]\n"
        "print(time.process_time(), int(peak) / 1024)"
    )
    out = subprocess.run([sys.executable, "-c", code, wide], capture_output=True, text=True, check=True).stdout
    seconds, megabytes = map(float, out.split())
    assert seconds < 5 and megabytes < 300


def test_python_and_command_line_name_the_same_formats():
    assert get_args(Format) == FORMATS


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("list.txt", b"\xff\xfe" + "a.mp4 x\n".encode("utf-16-le") + b"\n", "damaged UTF-16"),
        ("Diving48_train.json", b'[{"vid_name": "a"}]', "expected `vid_name` and a number as `label`"),
        ("Diving48_train.json", b'[{"vid_name": "a", "label": null}]', "expected `vid_name` and a number as `label`"),
    ],
)
def test_damaged_lists_are_one_line(tmp_path, name, data, message):
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ActionVitError, match=message):
        load_dataset(tmp_path if name.endswith("json") else tmp_path / name)


def test_several_official_splits_as_tables_are_refused(tmp_path):
    for number in (1, 2):
        for name in ("train", "test"):
            (tmp_path / f"{name}_split{number}.csv").write_text("path,label\na.mp4,x\nb.mp4,y\n")
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ActionVitError, match="several official splits as tables"):
        load_dataset(tmp_path)
