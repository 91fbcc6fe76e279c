"""Datasets as scripts, other programs and file systems leave them: no video, label or set is lost or exchanged."""

from __future__ import annotations

import json

import pytest
from file_trees import error, labels, put, sizes, tree

from actionvit.pipeline.datasets import load_dataset
from actionvit.pipeline.datasets.dataset import Dataset


def noted(dataset: Dataset, text: str) -> bool:
    return any(text in note for note in dataset.notes)


# Folders.


@pytest.mark.parametrize("name", ["__MACOSX", "$RECYCLE.BIN", "@eaDir", "#recycle", "System Volume Information"])
@pytest.mark.parametrize("inner", ["", "clap/"])
def test_folders_of_the_system_are_no_classes(tmp_path, name, inner):
    dataset = load_dataset(tree(tmp_path, "clap/1.mp4", "run/2.mp4", f"{name}/{inner}1.mp4"))
    assert dataset.class_names == ("clap", "run") and noted(dataset, f"ignored: `{name}`")


def test_folders_of_the_system_hide_no_listed_video(tmp_path):
    header = "label,youtube_id,time_start,time_end,split\n"
    root = tree(tmp_path, "v/a_000001_000011.mp4", "v/b_000002_000012.mp4", "__MACOSX/v/a_000001_000011.mp4")
    put(root, "train.csv", f"{header}run,a,1,11,train\n")
    put(root, "val.csv", f"{header}clap,b,2,12,val\n")
    assert labels(load_dataset(root)) == {"v/a_000001_000011.mp4": "run", "v/b_000002_000012.mp4": "clap"}


def test_links_back_to_the_root_add_no_videos(tmp_path):
    root = tree(tmp_path / "set", "clap/s/1.mp4", "run/s/2.mp4")
    (root / "clap" / "s" / "back").symlink_to(root)
    assert labels(load_dataset(root)) == {"clap/s/1.mp4": "clap", "run/s/2.mp4": "run"}


def test_links_back_to_the_root_hide_no_listed_video(tmp_path):
    records = {"train": ["1", "2"], "validation": ["3"]}
    root = tree(tmp_path / "set", *(f"v/{name}.webm" for name in "123"))
    (root / "v" / "back").symlink_to(root)
    (root / "again").symlink_to(root / "v")
    for name, ids in records.items():
        put(root, f"{name}.json", json.dumps([{"id": id, "template": "Moving [something]"} for id in ids]))
    assert sizes(load_dataset(root)) == [(2, 1, 0)]


def test_trainval_is_a_training_set(tmp_path):
    folders = tree(tmp_path / "a", "trainval/clap/1.mp4", "trainval/run/2.mp4", "test/clap/3.mp4", "test/run/4.mp4")
    assert sizes(load_dataset(folders)) == [(2, 0, 2)]
    table = "path,label,split\n1.mp4,clap,trainval\n2.mp4,run,train_val\n3.mp4,run,test\n"
    assert sizes(load_dataset(tree(tmp_path / "b", "1.mp4", "2.mp4", "3.mp4", a__csv=table) / "a.csv")) == [(2, 0, 1)]
    lists = tree(tmp_path / "c", "v/1.mp4", "v/2.mp4", trainval__txt="v/1.mp4 0\n", test__txt="v/2.mp4 1\n")
    assert sizes(load_dataset(lists)) == [(1, 0, 1)]


def test_trainval_beside_its_parts_is_read_once(tmp_path):
    root = tree(tmp_path, *(f"v/{number}.mp4" for number in range(3)), train__txt="v/0.mp4 0\n", val__txt="v/1.mp4 1\n")
    put(root, "trainval.txt", "v/0.mp4 0\nv/1.mp4 1\n")
    put(root, "test.txt", "v/2.mp4 0\n")
    assert sizes(load_dataset(root)) == sizes(load_dataset(root / "train.txt")) == [(1, 1, 1)]
    assert sizes(load_dataset(root / "trainval.txt")) == [(2, 0, 1)]


@pytest.mark.parametrize(("first", "second"), [("train", "eval"), ("test", "rest")])
def test_folders_beside_a_lonely_set_are_refused(tmp_path, first, second):
    root = tree(tmp_path, *(f"{name}/{label}/1.mp4" for name in (first, second) for label in ("clap", "run")))
    assert f"`{second}` would be left out" in error(root)
    assert load_dataset(root, format="folder").class_names == tuple(sorted((first, second)))


def test_left_out_folders_of_videos_are_noted_first(tmp_path):
    names = ("train", "val", "holdout")
    root = tree(tmp_path, *(f"{name}/{label}/1.mp4" for name in names for label in ("clap", "run")))
    (root / "logs").mkdir()
    dataset = load_dataset(root, test_split="val")
    assert "left out, not called like a set: `holdout`" in dataset.notes[1] and noted(dataset, "ignored: `logs`")


@pytest.mark.parametrize("path", ["a/b/", "a/b/c/"])
def test_root_several_folders_too_high_gets_a_hint(tmp_path, path):
    root = tree(tmp_path, f"{path}clap/1.mp4", f"{path}run/2.mp4")
    assert f"did you mean `{(root / path)}`" in error(root)


# Lists.


def test_folds_in_the_names_of_lists_are_splits(tmp_path):
    root = tree(tmp_path, *(f"v/{number}.mp4" for number in range(4)))
    for fold, (train, test) in enumerate((("01", "23"), ("23", "01"))):
        put(root, f"train_fold{fold}.txt", "".join(f"v/{number}.mp4 {number}\n" for number in train))
        put(root, f"test_fold{fold}.txt", "".join(f"v/{number}.mp4 {number}\n" for number in test))
    assert sizes(load_dataset(root)) == [(2, 0, 2), (2, 0, 2)]


def test_trainlist_and_testlist_are_sets(tmp_path):
    root = tree(tmp_path, "v/1.mp4", "v/2.mp4", trainlist__txt="v/1.mp4 0\n", testlist__txt="v/2.mp4 1\n")
    assert sizes(load_dataset(root)) == [(1, 0, 1)]


def test_dives_in_the_vocabulary_may_be_words(tmp_path):
    root = tree(tmp_path, "rgb/a_1.mp4", "rgb/b_1.mp4")
    for name, video, label in (("train", "a_1", 0), ("test", "b_1", 1)):
        put(root, f"Diving48_V2_{name}.json", json.dumps([{"vid_name": video, "label": label}]))
    put(root, "Diving48_vocab.json", json.dumps(["Back 15som", "Inward"]))
    assert load_dataset(root).class_names == ("Back 15som", "Inward")


@pytest.mark.parametrize("name", ["clap_test_split1.txt", "trainlist01.txt"])
def test_official_lists_are_not_read_as_labels(tmp_path, name):
    root = tree(tmp_path, "clap/A_clap_u_nm_np1_fr_goo_0.avi", "clap/B_clap_u_nm_np1_fr_goo_0.avi")
    file = put(root, name, "clap/A_clap_u_nm_np1_fr_goo_0.avi 1\nclap/B_clap_u_nm_np1_fr_goo_0.avi 2\n")
    assert "root= and splits_dir=" in error(file)
    assert "root= and splits_dir=" in error(root, lists={"train": file})
    assert load_dataset(file, format="list").class_names == ("1", "2")


@pytest.mark.parametrize("name", ["a_000001_000011", "a_1_11", "a_1.0_11.0", "a_000001_000011.mp4"])
def test_kinetics_names_of_any_script_are_found(tmp_path, name):
    header = "label,youtube_id,time_start,time_end,split\n"
    root = tree(tmp_path, f"train/{name}.mkv", "val/b_000002_000012.mp4")
    put(root, "train.csv", f"{header}run,a,1.0,11.0,train\n")
    put(root, "val.csv", f"{header}clap,b,2.0,12.0,val\n")
    dataset = load_dataset(root)
    assert sizes(dataset) == [(1, 1, 0)] and not noted(dataset, "without times")


def test_kinetics_videos_called_by_id_are_noted(tmp_path):
    header = "label,youtube_id,time_start,time_end,split\n"
    root = tree(tmp_path, "v/a.mp4", "v/b.mp4")
    put(root, "train.csv", f"{header}run,a,1,11,train\n")
    put(root, "val.csv", f"{header}clap,b,2,12,val\n")
    assert noted(load_dataset(root), "names without times, read whole and not from time_start to time_end: `v/a.mp4`")


def test_one_set_of_kinetics_on_disk_has_no_official_split(tmp_path):
    header = "label,youtube_id,time_start,time_end,split\n"
    root = tree(tmp_path, "val/b_000002_000012.mp4", "val/c_000002_000012.mp4")
    put(root, "train.csv", f"{header}run,a,1,11,train\n")
    put(root, "val.csv", f"{header}clap,b,2,12,val\nrun,c,2,12,val\n")
    dataset = load_dataset(root)
    assert dataset.official == () and noted(dataset, "all 2 videos on disk are in one set; protocol=grouped")


def test_unlabeled_test_list_leaves_the_training_set(tmp_path):
    root = tree(tmp_path, "v/1.mp4", "v/2.mp4", "v/3.mp4", train__txt="v/1.mp4 0\nv/2.mp4 1\n", test__txt="v/3.mp4\n")
    dataset = load_dataset(root / "train.txt")
    assert sizes(dataset) == [(2, 0, 0)] and noted(dataset, "no test set, but 2 training videos")
    assert noted(dataset, "1 test video without a label left out")


# Labels.


@pytest.mark.parametrize("label", ["1;5", '"1, 5"', "0|2", "\"['run', 'walk']\"", '"[1, 2]"', "['run']"])
def test_several_labels_in_a_cell_are_refused(tmp_path, label):
    root = tree(tmp_path, "1.mp4", "2.mp4", a__csv=f"path,label\n1.mp4,{label}\n2.mp4,jump\n")
    assert "line 2" in error(root / "a.csv") and "several labels; give a video one label" in error(root / "a.csv")


def test_words_joined_in_a_label_are_noted(tmp_path):
    root = tree(tmp_path, "1.mp4", "2.mp4", a__csv="path,label\n1.mp4,run;walk\n2.mp4,jump\n")
    assert noted(load_dataset(root / "a.csv"), "read as one class each: `run;walk`")


def test_templates_in_brackets_stay_labels(tmp_path):
    label = "[Something] falling like [a feather]"
    root = tree(tmp_path, "1.mp4", "2.mp4", a__csv=f"path,label\n1.mp4,{label}\n2.mp4,jump\n")
    assert load_dataset(root / "a.csv").class_names == (label, "jump")


def test_none_as_a_class_is_noted(tmp_path):
    root = tree(tmp_path, "1.mp4", "2.mp4", a__csv="path,label\n1.mp4,None\n2.mp4,jump\n")
    assert noted(load_dataset(root / "a.csv"), "`None` is read as a class")


def test_sets_labeled_by_number_and_by_name_are_refused(tmp_path):
    root = tree(tmp_path, "1.mp4", "2.mp4", "3.mp4", train__csv="path,label\n1.mp4,run\n2.mp4,jump\n")
    put(root, "val.csv", "path,label\n3.mp4,0\n")
    assert "`val.csv`" in error(root).replace(f"{root}/", "") and "by name" in error(root)


def test_labels_that_contradict_folders_are_noted(tmp_path):
    table = "path,label\nrun/1.mp4,jump\njump/2.mp4,run\nrun/3.mp4,run\n"
    root = tree(tmp_path, "run/1.mp4", "jump/2.mp4", "run/3.mp4", a__csv=table)
    text = "2 videos in folders called like another class than the label: `jump/2.mp4`, `run/1.mp4`"
    assert noted(load_dataset(root / "a.csv"), text)


def test_placeholders_for_test_labels_are_noted(tmp_path):
    root = tree(tmp_path, *(f"{number}.mp4" for number in range(4)), train__txt="0.mp4 0\n1.mp4 1\n")
    put(root, "test.txt", "2.mp4 0\n3.mp4 0\n")
    assert noted(load_dataset(root / "train.txt"), "all 2 test videos are of one class, `0`: a placeholder?")


# Copies.


def test_listed_links_to_one_video_are_noted(tmp_path):
    root = tree(tmp_path, "v/1.mp4", "v/2.mp4", train__txt="v/1.mp4 0\n", val__txt="link/1.mp4 0\nlink/2.mp4 1\n")
    (root / "link").symlink_to(root / "v")
    assert noted(load_dataset(root / "train.txt"), "1 path by a link to a video that is listed already: `link/1.mp4`")


def test_one_video_in_two_containers_is_noted(tmp_path):
    dataset = load_dataset(tree(tmp_path, "run/1.avi", "run/1.mp4", "jump/2.mp4"))
    assert noted(dataset, "2 videos differ in the suffix alone: `run/1.avi`, `run/1.mp4`")


# Tables and lists of other programs.


def test_sep_line_of_excel_is_read(tmp_path):
    root = tree(tmp_path, "1.mp4", "2.mp4", a__csv="sep=;\npath;label\n1.mp4;jump, high\n2.mp4;run\n")
    assert labels(load_dataset(root / "a.csv")) == {"1.mp4": "jump, high", "2.mp4": "run"}
    put(root, "a.csv", "sep=;\npath;label\n1.mp4;jump\n2.mp4;\n")
    assert "line 4: empty label" in error(root / "a.csv")


@pytest.mark.parametrize("delimiter", [";", "|", "; ", ", ", "\t"])
def test_lists_without_header_have_any_usual_delimiter(tmp_path, delimiter):
    text = "".join(f"{number}.mp4{delimiter}{label}\n" for number, label in ((1, "jump high"), (2, "run")))
    root = tree(tmp_path, "1.mp4", "2.mp4", a__csv=text)
    assert labels(load_dataset(root / "a.csv")) == {"1.mp4": "jump high", "2.mp4": "run"}


def test_blanks_before_quotes_are_harmless(tmp_path):
    root = tree(tmp_path, "1.mp4", "2.mp4", a__csv='path, label\n1.mp4, "run, fast"\n2.mp4, "jump"\n')
    assert labels(load_dataset(root / "a.csv")) == {"1.mp4": "run, fast", "2.mp4": "jump"}


def test_quoted_paths_in_lists_are_read(tmp_path):
    root = tree(tmp_path, "a b.mp4", "c.mp4", a__txt='"a b.mp4" 0\n"c.mp4" 1\n')
    assert labels(load_dataset(root / "a.txt")) == {"a b.mp4": "0", "c.mp4": "1"}


def test_unlabeled_test_lists_may_have_blanks_in_names(tmp_path):
    root = tree(tmp_path, "v/1.mp4", "v/2.mp4", "v/a b.mp4", train__txt="v/1.mp4 0\nv/2.mp4 1\n")
    put(root, "test.txt", "v/a b.mp4\n")
    assert noted(load_dataset(root / "train.txt"), "without a label left out: `v/a b.mp4`")


@pytest.mark.parametrize("given", ["", "train.csv"])
def test_ucf101_of_kaggle_is_read_by_its_tables(tmp_path, given):
    for name, group in (("train", "g08"), ("val", "g02"), ("test", "g01")):
        rows = []
        for label in ("Archery", "Biking"):
            path = f"{name}/{label}/v_{label}_{group}_c01.avi"
            put(tmp_path, path)
            rows.append(f"v_{label}_{group}_c01,/{path},{label}\n")
        put(tmp_path, f"{name}.csv", "".join(["clip_name,clip_path,label\n", *rows]))
    dataset = load_dataset(tmp_path / given)
    assert sizes(dataset) == [(2, 2, 2)] and dataset.sources_known
    assert labels(dataset)["train/Archery/v_Archery_g08_c01.avi"] == "Archery"


def test_tables_with_tags_are_read(tmp_path):
    for name, video in (("train", "1"), ("test", "2")):
        put(tmp_path, f"{name}/{video}.avi")
        put(tmp_path, f"{name}.csv", f",video_name,tag\n0,{video}.avi,{name}ing\n")
    assert labels(load_dataset(tmp_path)) == {"train/1.avi": "training", "test/2.avi": "testing"}


def test_whole_numbers_as_seconds_are_noted(tmp_path):
    root = tree(tmp_path, "1.mp4", a__csv="path,label,start,end\n1.mp4,run,0,30\n1.mp4,jump,40,100\n")
    assert noted(load_dataset(root / "a.csv"), "are read as seconds; call columns of frames `start_frame`")
    put(root, "a.csv", "path,label,start_frame,stop_frame\n1.mp4,run,0,30\n1.mp4,jump,40,100\n")
    dataset = load_dataset(root / "a.csv")
    assert [video.id for video in dataset.videos] == ["1.mp4@0-30f", "1.mp4@40-100f"]
    assert not noted(dataset, "are read as seconds")


# Ways out.


@pytest.mark.parametrize("listed", ["v/1", "v/1.avi", "v/1.MP4", "v/für"])
def test_path_in_another_spelling_names_the_file(tmp_path, listed):
    stem = listed.removeprefix("v/").partition(".")[0].replace("ü", "u\u0308")
    root = tree(tmp_path, f"v/{stem}.mp4", a__csv=f"path,label\n{listed},run\n")
    assert "; `" in error(root / "a.csv") and error(root / "a.csv").endswith("is there")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("1.mp4 jump high\n2.mp4 run\n", "a label that holds blanks needs a comma or tab"),
        ("/gone/data/1.mp4 run\n/gone/data/2.mp4 jump\n", "list paths relative to a folder and give it as root="),
        ("other/1.mp4 run\nother/2.mp4 jump\n", "give it as root= and the list as lists="),
        ("id,start,end,label\n1.mp4,0,2,run\n", "rename one of its columns: `end`, `id`, `label`, `start`"),
    ],
)
def test_errors_of_lists_name_the_likely_cause(tmp_path, text, hint):
    root = tree(tmp_path, "1.mp4", "2.mp4", a__txt=text)
    assert hint in error(root / "a.txt")
    assert "header, call" not in error(root / "a.txt")


def test_copy_of_the_validation_list_gets_a_way_out(tmp_path):
    root = tree(tmp_path, "1.mp4", "2.mp4", train__csv="1.mp4 0\n", val__csv="2.mp4 1\n", test__csv="2.mp4 1\n")
    assert "choose test_split=val" in error(root / "train.csv")


def test_flat_videos_beside_their_table_get_a_way_out(tmp_path):
    root = tree(tmp_path, "1.mp4", "2.mp4", metadata__csv="filename,label\n1.mp4,run\n2.mp4,jump\n")
    assert "give it as root=: `metadata.csv`" in error(root)


def test_root_above_the_set_folders_gets_a_hint(tmp_path):
    root = tree(tmp_path, *(f"videos/{name}/{label}/1.mp4" for name in ("train", "val") for label in ("clap", "run")))
    assert f"did you mean `{root / 'videos'}`?" in error(root)


def test_lists_that_cannot_be_read_leave_the_folders(tmp_path):
    root = tree(
        tmp_path, *(f"{name}/{label}/{name}.mp4" for name in ("training", "validation") for label in ("a", "b"))
    )
    for name in ("training", "validation"):
        put(root, f"{name}Set.csv", f"a/{name}.mp4,a,3,0\nb/{name}.mp4,b,3,1\n")
    assert "to read the folders alone, choose format=sets" in error(root)
    assert sizes(load_dataset(root, format="sets")) == [(2, 2, 0)]


# Names of classes.


def test_unicode_forms_of_one_class_are_noted(tmp_path):
    table = "path,label\n1.mp4,T\u00fcr\n2.mp4,Tu\u0308r\n3.mp4,auf\n"
    root = tree(tmp_path, "1.mp4", "2.mp4", "3.mp4", a__csv=table)
    assert noted(load_dataset(root / "a.csv"), "classes differ in case or punctuation alone")


def test_labels_in_another_encoding_are_refused(tmp_path):
    root = tree(tmp_path, "1.mp4", "2.mp4")
    (root / "a.txt").write_bytes("1.mp4 Grüßen\n2.mp4 run\n".encode("cp1252"))
    assert "line 1" in error(root / "a.txt") and "is not UTF-8" in error(root / "a.txt")


def test_descriptions_as_labels_are_noted(tmp_path):
    names = [f"{number}.mp4" for number in range(12)]
    table = "".join(["path,label\n", *(f"{name},a man does {name}\n" for name in names)])
    assert noted(load_dataset(tree(tmp_path, *names, a__csv=table) / "a.csv"), "are the labels descriptions")


def test_sets_without_a_common_class_are_noted(tmp_path):
    names = ("train/part_0/1", "train/part_1/2", "val/part_7/3", "val/part_8/4")
    dataset = load_dataset(tree(tmp_path, *(f"{name}.mp4" for name in names)))
    assert noted(dataset, "no class of the validation videos, as `part_7`, `part_8`, is in the training set")


def test_notes_on_classes_come_before_notes_on_files(tmp_path):
    table = "path,label,fps,note\nrun/1.mp4,jump,1,a\njump/2.mp4,run,1,b\n"
    root = tree(tmp_path, "run/1.mp4", "jump/2.mp4", a__csv=table)
    assert "called like another class" in load_dataset(root / "a.csv").notes[0]


def test_dives_outside_the_vocabulary_are_refused(tmp_path):
    root = tree(tmp_path, "rgb/a_1.mp4", "rgb/b_1.mp4")
    for name, video, label in (("train", "a_1", 0), ("test", "b_1", 2)):
        put(root, f"Diving48_V2_{name}.json", json.dumps([{"vid_name": video, "label": label}]))
    put(root, "Diving48_vocab.json", json.dumps([["Back", "15som"], ["Inward"]]))
    assert "label 2, and" in error(root) and "names 0 to 1" in error(root)


@pytest.mark.parametrize("blanks", [" ", "     "])
def test_headers_separated_by_blanks_are_read(tmp_path, blanks):
    rows = (("path", "label"), ("1.mp4", "jump"), ("2.mp4", "run"))
    root = tree(tmp_path, "1.mp4", "2.mp4", a__txt="".join(f"{blanks.join(row)}\n" for row in rows))
    assert labels(load_dataset(root / "a.txt")) == {"1.mp4": "jump", "2.mp4": "run"}


def test_blanks_in_the_names_of_columns_are_no_delimiter(tmp_path):
    root = tree(tmp_path, "a b.mp4", "2.mp4", a__csv="File Name,Class\na b.mp4,jump high\n2.mp4,run\n")
    assert labels(load_dataset(root / "a.csv")) == {"a b.mp4": "jump high", "2.mp4": "run"}


def test_groups_of_classes_are_no_sources(tmp_path):
    rows = [("1", "squat", "legs"), ("2", "lunge", "legs"), ("3", "press", "arms"), ("4", "squat", "legs")]
    table = "".join(["path,label,group\n", *(f"{name}.mp4,{label},{group}\n" for name, label, group in rows)])
    root = tree(tmp_path, *(f"{name}.mp4" for name, _, _ in rows), a__csv=table)
    text = "2 sources of 4 videos, each class in one, as `arms`, `legs`: if they are no films or recordings, rename"
    assert noted(load_dataset(root / "a.csv"), text)


def test_frame_folders_without_classes_get_a_way_out(tmp_path):
    assert "folders of images lie in" in error(tree(tmp_path, "clip1/1.jpg", "clip2/1.jpg"))


@pytest.mark.parametrize("name", ["2.f137.mp4", "2.temp.mkv", "2.part.webm"])
def test_leftovers_of_a_download_are_noted(tmp_path, name):
    dataset = load_dataset(tree(tmp_path, "run/1.mp4", f"run/{name}", "jump/3.mp4", "jump/4.final.mp4"))
    assert noted(dataset, f"1 video called like leftovers of a download: `run/{name}`; remove")


def test_header_that_begins_with_a_hash_is_read(tmp_path):
    root = tree(tmp_path, "1.mp4", "2.mp4", a__tsv="#path\tlabel\n1.mp4\trun\n2.mp4\tjump\n")
    assert labels(load_dataset(root / "a.tsv")) == {"1.mp4": "run", "2.mp4": "jump"}
