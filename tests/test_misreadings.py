"""Trees and lists that look like another format: read as intended, or refused with the remedy, never silently."""

from __future__ import annotations

from pathlib import Path

import pytest
from file_trees import error, labels, put, sizes, tree

from actionvit.pipeline.datasets import load_dataset


def notes(root: Path, **options) -> str:
    return "\n".join(load_dataset(root, **options).notes)


# Folders called like sets.


@pytest.mark.parametrize(
    ("train", "test"),
    [
        *(("train", "test"), ("videos_train", "videos_test"), ("train_256", "test_256"), ("rgb-train", "rgb-test")),
        *(("trainset", "testset"), ("TrainVideos", "TestVideos"), ("training_set", "test_set"), ("train", "test_full")),
    ],
)
@pytest.mark.parametrize("below", ["", "sub/", "a/b/"])
def test_set_folders_are_sets_by_any_usual_name(tmp_path, train, test, below):
    root = tree(tmp_path, *(f"{name}/{label}/{below}{name}.mp4" for name in (train, test) for label in ("clap", "run")))
    assert load_dataset(root).class_names == ("clap", "run") and load_dataset(root).format == "sets"
    assert sizes(load_dataset(root)) == [(2, 0, 2)]


def test_sets_of_mixed_depth_are_kept(tmp_path):
    root = tree(tmp_path, "train/clap/1.mp4", "train/run/2.mp4", "test/clap/sub/3.mp4", "test/run/sub/4.mp4")
    assert sizes(load_dataset(root)) == [(2, 0, 2)]


def test_class_names_that_contain_a_set_stay_classes(tmp_path):
    root = tree(tmp_path, "ride_train/1.mp4", "test_tube/2.mp4", "walk/3.mp4")
    assert load_dataset(root).class_names == ("ride_train", "test_tube", "walk")


def test_videos_in_set_folders_without_classes_are_refused(tmp_path):
    message = error(tree(tmp_path, "videos_train/1.mp4", "videos_val/2.mp4"))
    assert "called like a set" in message and "format=folder" in message
    assert load_dataset(tmp_path, format="folder").class_names == ("videos_train", "videos_val")


def test_two_folders_of_one_set_are_refused(tmp_path):
    message = error(tree(tmp_path, "train/clap/1.mp4", "train_256/clap/1.mp4", "val/clap/2.mp4"))
    assert "`train`, `train_256`" in message and "several folders of the set train" in message


def test_set_folders_below_class_folders_are_refused(tmp_path):
    message = error(tree(tmp_path, "clap/train/1.mp4", "clap/test/2.mp4", "run/train/3.mp4"))
    assert "called like a set below a class folder" in message and "train/CLASS" in message
    assert "called like a set" in error(tree(tmp_path / "b", "rgb/train/clap/1.mp4", "flow/train/clap/1.mp4"))


def test_root_one_folder_too_high_is_noted(tmp_path):
    root = tree(tmp_path, *(f"{top}/{label}/1.mp4" for top in ("rgb", "flow") for label in ("clap", "run")))
    assert "have the same names, `clap`, `run`: if they are the classes, change root=" in notes(root)


# Files of class names.

LIST = "clips/a.mp4 0\nclips/b.mp4 1\nclips/c.mp4 2\n"
CLIPS = ("clips/a.mp4", "clips/b.mp4", "clips/c.mp4")
NAMED = {"clips/a.mp4": "clap", "clips/b.mp4": "run", "clips/c.mp4": "walk"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "clap\nrun\nwalk\n"),
        ("classes.txt", "# names of my classes\nclap\nrun\nwalk\n\n"),
        ("classes.txt", "class_name\nclap\nrun\nwalk\n"),
        ("classInd.txt", "0 clap\n1 run\n2 walk\n"),
        ("classInd.txt", "clap 0\nrun 1\nwalk 2\n"),
        ("classes.csv", "id,name\n0,clap\n2,walk\n1,run\n"),
        ("kinetics_labels.csv", "name;id\nclap;0\nrun;1\nwalk;2\n"),
        ("label_map.txt", '0: "clap"\n1: "run"\n2: "walk"\n'),
        ("categories.txt", "clap,0\nrun,1\nwalk,2\n"),
    ],
)
def test_class_names_are_read_in_any_usual_form(tmp_path, name, text):
    put(tmp_path, name, text)
    assert labels(load_dataset(put(tree(tmp_path, *CLIPS), "list.txt", LIST))) == NAMED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clap\nrun\nclap\nwalk\n", "line 3: class `clap` occurs twice"),
        ("0 clap\n1 run\n1 walk\n", "line 3: number 1 occurs twice"),
        ("clap\n\nrun\nwalk\n", "line 2 is empty"),
        ("clap\n1 run\nwalk\n", "line 2: `1 run`; expected a number in every line"),
        ("1 clap\n2 run\n3 walk\n", "label 0 has no name in"),
        ("0 clap 3\n1 run 4\n2 walk 5\n", "is its number the first or the last word?"),
        ("id,name,count\n0,clap,7\n1,run,7\n2,walk,7\n", "more than two columns"),
    ],
)
def test_damaged_class_names_are_refused(tmp_path, text, message):
    put(tmp_path, "classes.txt", text)
    assert message in error(put(tree(tmp_path, *CLIPS), "list.txt", LIST))


def test_two_files_of_class_names_that_disagree_are_refused(tmp_path):
    root = tree(tmp_path, *CLIPS, list__txt=LIST, classes__txt="clap\nrun\nwalk\n", labels__txt="clap\nwalk\nrun\n")
    message = error(root / "list.txt")
    assert "classes.txt` and `labels.txt` name class 1 `run` and `walk`; keep" in message
    put(root, "labels.txt", "clap\nrun\nwalk\njump\n")
    assert labels(load_dataset(root / "list.txt")) == NAMED


def test_names_that_contradict_the_class_folders_are_refused(tmp_path):
    text = "clap/1.mp4 1\nrun/2.mp4 0\n"
    root = tree(tmp_path, "clap/1.mp4", "run/2.mp4", list__txt=text, classes__txt="clap\nrun\n")
    assert "class 0 `clap`, but its videos lie in folders called `run`" in error(root / "list.txt")


def test_names_without_numbers_need_a_label_0(tmp_path):
    text = "clips/a.mp4 1\nclips/b.mp4 2\n"
    root = tree(tmp_path, *CLIPS, list__txt=text, classes__txt="clap\nrun\nwalk\n")
    assert "count from 0 or from 1?" in error(root / "list.txt")
    put(root, "classes.txt", "1 clap\n2 run\n3 walk\n")
    assert labels(load_dataset(root / "list.txt")) == {"clips/a.mp4": "clap", "clips/b.mp4": "run"}


def test_per_video_labels_are_no_class_names(tmp_path):
    root = tree(tmp_path, *CLIPS, list__txt=LIST, labels__txt="a.mp4 0\nb.mp4 1\n", labels__csv="file,label\na.mp4,0\n")
    assert "labels are numbers without names (3 classes)" in notes(root / "list.txt")


def test_numbers_in_headed_tables_get_names_or_a_note(tmp_path):
    root = tree(tmp_path, *CLIPS, list__csv="path,label\n" + LIST.replace(" ", ","))
    assert "labels are numbers without names (3 classes)" in notes(root / "list.csv")
    put(root, "classes.txt", "clap\nrun\nwalk\n")
    assert labels(load_dataset(root / "list.csv")) == NAMED
    folder = tree(tmp_path / "hf", "a.mp4", "b.mp4", metadata__csv="file_name,label\na.mp4,0\nb.mp4,1\n")
    assert "labels are numbers without names (2 classes)" in notes(folder)


# Lines with too much or too little.


@pytest.mark.parametrize("text", ["a.mp4 1 3\nb.mp4 0 2\n", "a.mp4,1,3\nb.mp4,0,2\n", "a.mp4 1 3\n", "a.mp4 2 0 5\n"])
def test_several_labels_per_video_are_refused(tmp_path, text):
    root = tree(tmp_path, "a.mp4", "b.mp4", list__txt=text)
    assert "line 1" in error(root / "list.txt") and "several labels" in error(root / "list.txt")
    assert "line 1" in error(root / "list.txt", format="frame-list")


def test_rows_of_a_frame_list_name_folders(tmp_path):
    root = tree(tmp_path, "clip/1.jpg", "b", list__txt="clip 1 0\nb 6 1\n")
    assert "line 2: `b` is a file, and a line `folder frames label` names a folder" in error(root / "list.txt")
    root = tree(tmp_path / "c", *(f"{clip}/{n}.jpg" for clip in "ab" for n in range(6)), list__txt="a 1 3\nb 0 2\n")
    assert "line 1: `a 1 3`; expected `path label`" in error(root / "list.txt")
    put(root, "list.txt", "a 3 1\nb 2 0\n")
    assert "the second column is not a number of frames: `a` has 6, listed 3" in notes(root / "list.txt")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("path,label\na.mp4,putting a, b\n", "line 2: 3 cells, but the header names 2 columns"),
        ("path,label,split\na.mp4,clap,train\nb.mp4,run\n", "line 3: 2 cells, but the header names 3 columns"),
        ("a.mp4,clap\nb.mp4,putting a, b\n", "line 2: `b.mp4,putting a, b`; expected `path label`"),
    ],
)
def test_rows_of_another_length_are_refused(tmp_path, text, line):
    message = error(tree(tmp_path, "a.mp4", "b.mp4", list__csv=text) / "list.csv")
    assert line in message and "quote" in message


def test_empty_cells_at_the_end_are_harmless(tmp_path):
    root = tree(tmp_path, "a.mp4", "b.mp4", list__csv="path,label\na.mp4,clap,,\nb.mp4,run\n,,\n")
    assert labels(load_dataset(root / "list.csv")) == {"a.mp4": "clap", "b.mp4": "run"}


# Columns.


@pytest.mark.parametrize("name", ["class", "label_name", "category"])
def test_a_column_of_names_comes_before_numbers(tmp_path, name):
    text = f"path,label,{name}\na.mp4,0,clap\nb.mp4,1,run\n"
    assert labels(load_dataset(tree(tmp_path, "a.mp4", "b.mp4", list__csv=text) / "list.csv")) == {
        "a.mp4": "clap",
        "b.mp4": "run",
    }
    assert "not read" not in notes(tmp_path / "list.csv")


def test_a_coarser_column_does_not_replace_numbers(tmp_path):
    text = "path,label,category\na.mp4,0,sport\nb.mp4,1,sport\nc.mp4,2,home\n"
    root = tree(tmp_path, "a.mp4", "b.mp4", "c.mp4", list__csv=text)
    assert set(labels(load_dataset(root / "list.csv")).values()) == {"0", "1", "2"}
    assert "columns of `list.csv` not read: `category`" in notes(root / "list.csv")


@pytest.mark.parametrize("column", ["start_ms", "onset", "clip_start", "first_frame", "t0", "end_idx"])
def test_unknown_columns_of_times_are_refused(tmp_path, column):
    root = tree(tmp_path, "a.mp4", list__csv=f"path,label,{column}\na.mp4,clap,1\n")
    message = error(root / "list.csv")
    assert f"`{column}` looks like a time" in message and "`start` and `end`" in message


@pytest.mark.parametrize(
    ("start", "end"), [("start_seconds", "end_seconds"), ("begin", "end"), ("starttime", "endtime")]
)
def test_usual_columns_of_times_are_read(tmp_path, start, end):
    root = tree(tmp_path, "a.mp4", list__csv=f"path,label,{start},{end}\na.mp4,clap,1,2.5\na.mp4,run,3,4\n")
    assert labels(load_dataset(root / "list.csv")) == {"a.mp4@1-2.5": "clap", "a.mp4@3-4": "run"}
    assert "two numbers" in error(put(root, "b.csv", f"path,label,{start}\na.mp4,clap,1\n"))


def test_columns_that_are_not_read_are_named(tmp_path):
    root = tree(tmp_path, "a.mp4", "b.mp4", list__csv="path,label,fold,fps\na.mp4,clap,1,25\nb.mp4,run,2,25\n")
    assert "columns of `list.csv` not read: `fold`, `fps`; give folds as columns `split1`" in notes(root / "list.csv")
    put(root, "list.csv", "path,label,is_train\na.mp4,clap,1\nb.mp4,run,0\n")
    assert "not read: `is_train`; give the sets as a column `split`" in notes(root / "list.csv")


def test_columns_that_contradict_each_other_are_refused(tmp_path):
    root = tree(tmp_path, "a.mp4", "b.mp4", list__csv="path,label,split,split1\na.mp4,clap,train,test\n")
    assert "columns `split`, `split1` name the first split" in error(root / "list.csv")
    put(root, "list.csv", "path,label,label\na.mp4,clap,run\n")
    assert "column `label` occurs twice" in error(root / "list.csv")


def test_header_of_several_unknown_names_gets_a_hint(tmp_path):
    root = tree(tmp_path, "a.mp4", "b.mp4", list__csv="clip,gesture,person\na.mp4,clap,7\nb.mp4,run,8\n")
    assert "line 1" in error(root / "list.csv") and "call its columns path,label" in error(root / "list.csv")


def test_given_set_against_the_files_own_column_is_refused(tmp_path):
    text = "path,label,split\na.mp4,clap,train\nb.mp4,run,test\n"
    root = tree(tmp_path, "a.mp4", "b.mp4", "c.mp4", all__csv=text, val__csv="path,label\nc.mp4,clap\n")
    message = error(root, lists={"train": root / "all.csv", "val": root / "val.csv"})
    assert "line 3: split `test` in a list of the set train" in message


# Several lists.


def test_table_of_a_set_is_read_with_its_siblings(tmp_path):
    header = "path,label\n"
    root = tree(tmp_path, "a.mp4", "b.mp4", "c.mp4", "d.mp4")
    put(root, "train.csv", f"{header}a.mp4,clap\nb.mp4,run\n")
    put(root, "val.csv", f"{header}c.mp4,clap\n")
    put(root, "test.csv", "path\nd.mp4\n")
    assert sizes(load_dataset(root / "train.csv")) == [(2, 1, 0)] and "1 test video without a label left out" in notes(
        root / "val.csv"
    )
    put(root, "test.csv", f"{header}d.mp4,run\n")
    assert sizes(load_dataset(root / "train.csv")) == sizes(load_dataset(root)) == [(2, 1, 1)]
    put(root, "val.csv", "c.mp4,clap\n")
    assert "has a header, and `val.csv` beside it has none" in error(root / "train.csv")
    put(root, "train.csv", "path,label,split\na.mp4,clap,train\nb.mp4,run,test\n")
    assert "`test.csv`, `val.csv` beside it not read" in notes(root / "train.csv")


@pytest.mark.parametrize("header", ["", "path,label\n"])
def test_each_list_has_a_folder_of_its_own(tmp_path, header):
    root = tree(tmp_path, "videos_train/clap/a.mp4", "videos_train/run/b.mp4", "videos_val/clap/a.mp4")
    put(root, "drawn_train_list.csv", f"{header}clap/a.mp4,clap\nrun/b.mp4,run\n")
    put(root, "drawn_val_list.csv", f"{header}clap/a.mp4,clap\n")
    for place in (root, root / "drawn_train_list.csv"):
        assert sizes(load_dataset(place)) == [(2, 1, 0)]
        assert set(labels(load_dataset(place))) == {
            "videos_train/clap/a.mp4",
            "videos_train/run/b.mp4",
            "videos_val/clap/a.mp4",
        }


def test_paths_in_two_folders_are_noted(tmp_path):
    root = tree(tmp_path, "videos/a.mp4", "videos_256/a.mp4", list__txt="a.mp4 clap\n")
    assert "paths of `list.txt` start at `videos`, but exist in `videos_256` as well" in notes(root / "list.txt")


@pytest.mark.parametrize("name", ["all.txt", "annotations/list.csv", "labels/train.csv", "../own.txt"])
@pytest.mark.parametrize("kind", ["", "train/"])
def test_list_files_beside_class_folders_are_named(tmp_path, name, kind):
    root = tree(tmp_path / "set", f"{kind}clap/a.mp4", f"{kind}run/b.mp4")
    put(root, name, f"{kind}clap/a.mp4 0\n" if "train.csv" not in name else "elsewhere/a.mp4 0\n")
    message = notes(root)
    assert "1 list file in" in message and f"`{name}`" in message and "lists=" in message


def test_lists_of_another_dataset_beside_root_are_not_named(tmp_path):
    root = tree(tmp_path / "set", "clap/a.mp4", "run/b.mp4")
    other = tree(tmp_path / "other", "clap/c.mp4")
    put(tmp_path, "other.txt", f"{other / 'clap/c.mp4'} 0\nclap/c.mp4 1\n")
    assert "other.txt" not in notes(root)
    put(tmp_path, "own.txt", f"{root / 'clap/a.mp4'} 0\n")
    assert "`../own.txt`" in notes(root)


def test_second_pair_of_lists_is_named(tmp_path):
    root = tree(tmp_path, "videos/a.mp4", "videos/b.mp4", train__txt="a.mp4 x\n", val__txt="b.mp4 y\n")
    put(root, "other.txt", "videos/a.mp4 y\n")
    assert sizes(load_dataset(root)) == [(1, 1, 0)] and "1 list file in" in notes(root) and "`other.txt`" in notes(root)


# Videofolders and public sets.


def test_rows_of_a_videofolder_name_files(tmp_path):
    root = tree(tmp_path, "train/a.mp4", "test/b.mp4")
    put(root, "test/metadata.csv", "file_name,label\nb.mp4,run\n")
    put(root, "train/metadata.csv", "file_name,label\na.mp4,clap\n,run\n")
    assert "line 3: empty path" in error(root)
    put(root, "train/metadata.csv", "file_name,label\nhttps://host/a.mp4,clap\n")
    assert "line 2" in error(root) and "is a URL" in error(root)
    put(root, "train/metadata.csv", "file_name,label\n.,clap\n")
    assert "is a folder without images" in error(root)


def test_several_labels_in_json_are_refused(tmp_path):
    root = tree(tmp_path, "a.mp4", metadata__jsonl='{"file_name": "a.mp4", "label": [1, 3]}\n')
    assert "line 1: label `[1, 3]`; give a video one label" in error(root)


def test_two_files_of_one_id_are_refused(tmp_path):
    header = "label,youtube_id,time_start,time_end,split\n"
    root = tree(tmp_path, "train/abc_000001_000011.mp4", "train_256/abc_000001_000011.mp4", "val/x_000000_000010.mp4")
    put(root, "train.csv", f"{header}clap,abc,1,11,train\nrun,x,0,10,val\n")
    message = error(root)
    assert "line 2" in message and "`train_256/abc_000001_000011.mp4`" in message and "keep one" in message


def test_table_with_youtube_ids_and_paths_is_a_table(tmp_path):
    root = tree(tmp_path, "a.mp4", train__csv="path,label,youtube_id\na.mp4,clap,abc\n")
    assert load_dataset(root / "train.csv").format == "csv"


# Labels and paths.


def test_words_among_numbers_are_noted(tmp_path):
    root = tree(tmp_path, "a.mp4", "b.mp4", list__txt="a.mp4 3\nb.mp4 walk\n")
    assert "labels are words and numbers: `walk` and `3`" in notes(root / "list.txt")


@pytest.mark.parametrize("text", ["path,label\na.mp4,0\nb.mp4,-1\n", "a.mp4 0\nb.mp4 -1\n"])
def test_label_minus_one_is_no_class(tmp_path, text):
    root = tree(tmp_path, "a.mp4", "b.mp4", list__csv=text)
    assert "empty label, or -1" in error(root / "list.csv")
    assert "label -2; expected a number from 0" in error(put(root, "list.csv", text.replace("-1", "-2")))


def test_lists_of_minus_one_are_unlabeled(tmp_path):
    root = tree(tmp_path, "a.mp4", "b.mp4", list__txt="a.mp4 -1\nb.mp4 -1\n")
    assert load_dataset(root / "list.txt").class_names == () and "no labels" in notes(root / "list.txt")


def test_numbers_written_in_two_ways_are_one_class(tmp_path):
    root = tree(tmp_path, "a.mp4", "b.mp4", "c.mp4", list__csv="path,label\na.mp4,1\nb.mp4,1.0\nc.mp4,02\n")
    assert labels(load_dataset(root / "list.csv")) == {"a.mp4": "1", "b.mp4": "1", "c.mp4": "2"}


@pytest.mark.parametrize("text", ["path,label\na.mp4,{}\nb.mp4,1\n", "a.mp4 {}\nb.mp4 1\n"])
def test_label_of_5000_digits_is_refused(tmp_path, text):
    root = tree(tmp_path, "a.mp4", "b.mp4", list__csv=text.format("7" * 5000))
    assert "a label of 5,000 characters" in error(root / "list.csv")


def test_class_names_with_5000_digits_are_refused(tmp_path):
    root = tree(tmp_path, *CLIPS, list__txt=LIST, classes__txt=f"{'7' * 5000} clap\n1 run\n")
    assert "label 0 has no name in" in error(root / "list.txt")


def test_backslashes_in_paths_get_a_hint(tmp_path):
    root = tree(tmp_path, "clips/a.mp4", list__csv="path,label\nclips\\a.mp4,clap\n")
    assert "write paths with / instead of \\" in error(root / "list.csv")


def test_missing_values_are_no_class(tmp_path):
    root = tree(tmp_path, "a.mp4", "b.mp4", list__csv="path,label\na.mp4,clap\nb.mp4,nan\n")
    assert "line 3: label `nan` looks like a missing value" in error(root / "list.csv")


def test_lists_of_paths_take_their_classes_from_folders(tmp_path):
    root = tree(tmp_path, "clap/a.mp4", "run/b.mp4", train__txt="clap/a.mp4\n", test__txt="run/b.mp4\n")
    assert labels(load_dataset(root)) == {"clap/a.mp4": "clap", "run/b.mp4": "run"} and sizes(load_dataset(root)) == [
        (1, 0, 1)
    ]
    assert load_dataset(root).description == "a list of paths, classes by folder"
    one = tree(tmp_path / "b", "v/a.mp4", "v/b.mp4", train__txt="v/a.mp4\n", test__txt="v/b.mp4\n")
    assert load_dataset(one).class_names == ()


def test_column_names_with_blanks_are_read(tmp_path):
    root = tree(tmp_path, "a.mp4", "b.mp4", list__csv="File Name,Class-Name\na.mp4,clap\nb.mp4,run\n")
    assert labels(load_dataset(root / "list.csv")) == {"a.mp4": "clap", "b.mp4": "run"}


def test_classes_of_frame_folders_beside_videos_are_noted(tmp_path):
    root = tree(tmp_path, "clap/a.mp4", "run/b/1.jpg", "walk/c.mp4")
    assert "1 class folder of frame folders ignored, as others hold video files: `run`" in notes(root)


def test_videos_without_metadata_are_noted(tmp_path):
    root = tree(tmp_path, "train/a.mp4", "train/b.mp4", "test/c.mp4")
    put(root, "train/metadata.csv", "file_name,label\na.mp4,clap\n")
    put(root, "test/metadata.csv", "file_name,label\nc.mp4,run\n")
    assert "1 video in no metadata file: `train/b.mp4`" in notes(root)


def test_training_set_alone_gets_a_way_out(tmp_path):
    root = tree(tmp_path, "train/clap/a.mp4", "train/run/b.mp4")
    assert "no test set, but 2 training videos: protocol=grouped or stratified divides them" in notes(root)


def test_json_lines_of_sets_are_read_together(tmp_path):
    record = '{{"video": "{}", "label": "{}"}}\n'
    root = tree(tmp_path, "a.mp4", "b.mp4", train__jsonl=record.format("a.mp4", "x"))
    put(root, "test.jsonl", record.format("b.mp4", "y"))
    assert sizes(load_dataset(root / "train.jsonl")) == [(1, 0, 1)]


@pytest.mark.parametrize("folder", ["splits", "annotations", "meta"])
def test_lists_in_usual_folders_are_read(tmp_path, folder):
    root = tree(tmp_path, "clap/a.mp4", "run/b.mp4")
    put(root, f"{folder}/train.txt", "clap/a.mp4\n")
    put(root, f"{folder}/test.txt", "run/b.mp4\n")
    assert sizes(load_dataset(root)) == [(1, 0, 1)] and load_dataset(root).class_names == ("clap", "run")


def test_decimal_labels_are_noted(tmp_path):
    root = tree(tmp_path, "a.mp4", "b.mp4", list__txt="a.mp4 0.5\nb.mp4 1.5\n")
    assert "labels are decimal numbers, each its own class: `0.5`, `1.5`" in notes(root / "list.txt")


def test_first_missing_videos_are_named(tmp_path):
    root = tree(tmp_path, "a.mp4", list__txt="a.mp4 x\nb.mp4 x\nc.mp4 y\nd.mp4 y\n")
    assert "line 2: no video `b.mp4`" in error(root / "list.txt")
    assert "(3 paths missing), next `c.mp4`, `d.mp4`; correct" in error(root / "list.txt")


def test_missing_absolute_paths_are_named_as_written(tmp_path):
    root = tree(tmp_path, list__csv="path,label\n/none/a.avi,x\n/none/b.avi,y\n")
    message = error(root / "list.csv")
    assert "line 2: no file `/none/a.avi` (all 2 paths are missing), next `/none/b.avi`; correct" in message
    message = error(root / "list.csv", skip_missing=True)
    assert "none of its videos is on disk (2 paths); line 2: no file `/none/a.avi`" in message


def test_images_in_lists_are_refused(tmp_path):
    root = tree(tmp_path, "clip/1.jpg", list__csv="path,label\nclip/1.jpg,clap\n")
    assert "line 2: `clip/1.jpg` is an image; list the folder" in error(root / "list.csv")


def test_spellings_of_one_class_are_noted(tmp_path):
    root = tree(tmp_path, "a.mp4", "b.mp4", list__csv="path,label\na.mp4,Pick up\nb.mp4,pick_up\n")
    assert "classes differ in case or punctuation alone: `Pick up = pick_up`" in notes(root / "list.csv")


def test_notes_do_not_repeat(tmp_path):
    root = tree(tmp_path, "a.mp4", "b.mp4")
    for name, video in (("train", "a"), ("test", "b")):
        put(root, f"{name}.csv", f"path,label,fps\n{video}.mp4,{video},25\n")
    found = load_dataset(root / "train.csv").notes
    assert len(found) == len(set(found))


def test_error_without_a_test_set_names_what_gives_the_sets(tmp_path):
    root = tree(tmp_path, "a.mp4", a__txt="a.mp4 x\n")
    assert "the list files name no test video" in error(root, lists={"train": root / "a.txt"})
