"""Layouts, official lists, names: on trees of empty files, and on the real lists and clips."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actionvit.errors import ActionVitError
from actionvit.pipeline.datasets import load_dataset
from actionvit.pipeline.datasets.checking import check
from actionvit.pipeline.datasets.names import HMDB51_CLASSES, parse_metadata, parse_source, stem

STRANGE = (
    "#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi",
    "Who_cares!_(part_1)_clap_u_nm_np1_fr_goo_1.avi",
    "a;b&c+d~e[f]_clap_f_cm_np2_ba_bad_0.avi",
    "Ünï_cödé_拍手_clap_h_nm_np1_le_med_3.avi",
    "two words 'quoted', \"twice\"_clap_l_nm_np1_ri_med_4.avi",
)


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def write_lists(folder: Path, label: str, codes: dict[str, int], number: int = 1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{name} {code} \n" for name, code in codes.items())
    (folder / f"{label}_test_split{number}.txt").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def hmdb51(real_data, tmp_path_factory) -> Path:
    """All 6,766 names of the official lists, as empty files, the lists beside them."""
    root = tmp_path_factory.mktemp("full") / "hmdb51"
    for file in (real_data / "hmdb51_splits").glob("*_test_split1.txt"):
        folder = root / file.name.removesuffix("_test_split1.txt")
        folder.mkdir(parents=True)
        for line in file.read_text().splitlines():
            (folder / line.split()[0]).touch()
    (root.parent / "hmdb51_splits").symlink_to(real_data / "hmdb51_splits")
    return root


def test_official_counts_of_all_6766_names(hmdb51):
    dataset = load_dataset(hmdb51)
    assert (dataset.format, dataset.name, len(dataset.videos)) == ("hmdb51", "hmdb51", 6766)
    assert dataset.class_names == tuple(sorted(HMDB51_CLASSES))
    assert [(s.name, len(s.train), len(s.test)) for s in dataset.official] == [
        (f"official-{n}", 3570, 1530) for n in (1, 2, 3)
    ]
    ids = {video.id for video in dataset.videos}
    for split in dataset.official:
        assert not set(split.train) & set(split.test)
        assert set(split.train) | set(split.test) < ids
        per_class = dict.fromkeys(dataset.class_names, 0)
        for id in split.test:
            per_class[id.partition("/")[0]] += 1
        assert set(per_class.values()) == {30}
    assert sum(any(char in video.id for char in "#!(;") for video in dataset.videos) > 100
    assert [note for note in dataset.notes if "here" in note or "ignored" in note] == []


@pytest.mark.timing
def test_the_scan_of_6766_files_is_fast(hmdb51):
    def once() -> float:
        start = time.process_time()
        load_dataset(hmdb51)
        return time.process_time() - start

    # 0.07 s on a quick core, 0.3 s on a slow one; a comparison of every file with every other takes minutes.
    assert min(once() for _ in range(3)) < 1.5


def test_jhmdb_clips_match_the_lists_but_for_the_notes(real_data):
    dataset = load_dataset(real_data / "jhmdb21")
    assert (dataset.format, len(dataset.videos), len(dataset.class_names)) == ("hmdb51", 523, 21)
    notes = "\n".join(dataset.notes)
    assert "12 videos matched to the lists but for punctuation: `catch/Goalkeeper_Training_Day_@_7_" in notes
    assert "4 videos here, but in no official list: `catch/LearnToShootFromTheMaster_" in notes
    assert "2,519 videos in the official lists, but not here" in notes
    assert "30 listed classes not here, with 3,728 videos" in notes
    for split in dataset.official:
        assert len(split.train) + len(split.test) <= 519
    assert all(parse_metadata(stem(video.id)) for video in dataset.videos)
    by_source = {video.source for video in dataset.videos}
    assert "Drink_@18_-_Apple_martini" in by_source and len(by_source) == 177


@pytest.mark.parametrize("name", [".", "..", "a/b", "/tmp/x", "x\0"])
def test_dataset_names_that_are_no_folder_names_are_refused(tmp_path, name):
    root = make(tmp_path / "set", "clap/a.avi")
    with pytest.raises(ActionVitError, match="choose another name="):
        load_dataset(root, name=name)
    make(tmp_path, "a.avi")
    (tmp_path / "..csv").write_text("path,label\na.avi,clap\n")
    with pytest.raises(ActionVitError, match="choose another name="):
        load_dataset(tmp_path / "..csv")


def test_strange_names_survive(tmp_path):
    root = make(tmp_path / "set", *(f"clap/{name}" for name in STRANGE))
    write_lists(root / "splits", "clap", {name: 1 + (n > 2) for n, name in enumerate(STRANGE)})
    dataset = load_dataset(root)
    assert [video.id for video in dataset.videos] == sorted(f"clap/{name}" for name in STRANGE)
    assert all(video.path.is_file() for video in dataset.videos)
    assert len(dataset.official[0].train) == 3 and len(dataset.official[0].test) == 2
    assert {video.source for video in dataset.videos} == {name.partition("_clap_")[0] for name in STRANGE}


def test_order_is_by_id_not_by_the_file_system(tmp_path, monkeypatch):
    root = make(tmp_path / "set", "b/2.mp4", "a/10.mkv", "a/9.webm", "b/1.MOV", "a/Z.avi")
    real = os.scandir

    class Backwards:
        def __init__(self, path):
            with real(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    expected = ["a/10.mkv", "a/9.webm", "a/Z.avi", "b/1.MOV", "b/2.mp4"]
    assert [video.id for video in load_dataset(root).videos] == expected
    monkeypatch.setattr(os, "scandir", Backwards)
    assert [video.id for video in load_dataset(root).videos] == expected


def test_frame_folders(tmp_path):
    clips = ("Some.film_clap_u_nm_np1_fr_goo_0", "Some.film_clap_u_nm_np1_fr_goo_1", "B_clap_u_nm_np1_fr_goo_0")
    root = make(tmp_path / "HMDB_simp", *(f"clap/{clip}/{n}.jpg" for clip in clips for n in range(3)))
    make(root, "clap/empty/.DS_Store", "run/C_run_f_cm_np1_le_bad_0/0001.JPG", "clap/notes.txt")
    write_lists(
        tmp_path / "testTrainMulti_7030_splits", "clap", {f"{clip}.avi": 1 + n % 2 for n, clip in enumerate(clips)}
    )
    dataset = load_dataset(root)
    assert (dataset.format, dataset.class_names) == ("frames", ("clap", "run"))
    assert [video.id for video in dataset.videos] == sorted(
        [*(f"clap/{c}" for c in clips), "run/C_run_f_cm_np1_le_bad_0"]
    )
    assert {video.source for video in dataset.videos} == {"Some.film", "B", "C"}
    assert dataset.official[0].test == ("clap/Some.film_clap_u_nm_np1_fr_goo_1",)
    assert "2 entries ignored, no video: `clap/empty`, `clap/notes.txt`" in dataset.notes


def test_files_passed_over_are_noted(tmp_path):
    root = make(tmp_path / "set", "a/1.mp4", "a/2.mp4", "a/.hidden.mp4", "a/readme.txt", "a/deeper/3.mp4", "top.mp4")
    make(root, "logs/run.txt", ".cache/x/y.mp4", "b/1.mp4")
    dataset = load_dataset(root)
    assert [video.id for video in dataset.videos] == ["a/1.mp4", "a/2.mp4", "b/1.mp4"]
    assert (dataset.format, dataset.sources_known, dataset.class_names) == ("folder", False, ("a", "b"))
    assert [video.source for video in dataset.videos] == ["a/1.mp4", "a/2.mp4", "b/1.mp4"]
    assert dataset.notes == (
        "1 video outside the class folders ignored: `top.mp4`",
        "1 folder without videos ignored: `logs`",
        "1 video in folders below class folders that hold videos themselves ignored: `a/deeper/3.mp4`",
        "1 hidden file ignored: `a/.hidden.mp4`",
        "1 entry ignored, no video: `a/readme.txt`",
        "file names give no sources: every video counts as its own, and leaks cannot be seen",
    )


def test_broken_link_to_a_video_is_kept(tmp_path):
    root = make(tmp_path / "set", "a/1.mp4")
    (root / "a" / "2.mp4").symlink_to(tmp_path / "gone.mp4")
    assert [video.id for video in load_dataset(root).videos] == ["a/1.mp4", "a/2.mp4"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_utf8_are_left_out_with_a_note(tmp_path):
    root = make(tmp_path / "set", "a/1.mp4")
    (root / "a" / os.fsdecode(b"caf\xe9.mp4")).touch()
    dataset = load_dataset(root)
    assert [video.id for video in dataset.videos] == ["a/1.mp4"]
    assert "1 name left out, not UTF-8: `a/caf\\udce9.mp4`; rename to use" in dataset.notes
    "\n".join(dataset.notes).encode("utf-8")


@pytest.mark.parametrize(
    "place",
    [
        "set",
        "set/hmdb51_splits",
        "set/lists",
        "splits/testTrainMulti_7030_splits",
        "test_train_splits",
        "elsewhere",
        "",
    ],
)
def test_lists_are_found_inside_and_beside(tmp_path, place):
    names = [f"S{n}_clap_u_nm_np1_fr_goo_0.avi" for n in range(4)]
    root = make(tmp_path / "set", *(f"clap/{name}" for name in names))
    for number in (1, 2):
        write_lists(tmp_path / place, "clap", {name: 1 + (n == number) for n, name in enumerate(names)}, number)
    dataset = load_dataset(root)
    assert [split.test for split in dataset.official] == [(f"clap/{names[1]}",), (f"clap/{names[2]}",)]
    assert dataset.format == "hmdb51"
    assert load_dataset(root, format="folder").official == ()


def test_lists_of_another_dataset_are_passed_over(tmp_path):
    root = make(tmp_path / "mine", "clap/1.mp4", "clap/2.mp4")
    write_lists(tmp_path / "hmdb51_splits", "clap", {"other.avi": 1})
    dataset = load_dataset(root)
    assert (dataset.format, dataset.official) == ("folder", ())
    assert f"split lists in `{tmp_path / 'hmdb51_splits'}` ignored: they name none of these videos" in dataset.notes


def test_respelt_names_match_only_where_there_is_no_doubt(tmp_path):
    root = make(tmp_path / "set", "clap/a@1.avi", "clap/b@1.avi", "clap/b!1.avi", "clap/c1.avi", "clap/d_1.avi")
    codes = {"a#1.avi": 1, "b#1.avi": 1, "c#1.avi": 1, "d_1.avi": 2, "d#1.avi": 0}
    write_lists(root / "splits", "clap", codes)
    dataset = load_dataset(root)
    assert dataset.official[0].train == ("clap/a@1.avi",)
    assert dataset.official[0].test == ("clap/d_1.avi",)
    assert "1 video matched to the lists but for punctuation: `clap/a@1.avi`" in dataset.notes
    assert "3 videos here, but in no official list: `clap/b!1.avi`, `clap/b@1.avi`, `clap/c1.avi`" in dataset.notes
    assert "3 videos in the official lists, but not here: `clap/b#1`, `clap/c#1`, `clap/d#1`" in dataset.notes


def test_csv(tmp_path):
    make(tmp_path, "clips/a.mp4", "clips/b.mp4", "far/c.mp4", "clips/folder/1.jpg", "clips/#d, e.mp4")
    file = tmp_path / "list.csv"
    file.write_text(
        "\ufefflabel, path ,split,source\n"
        "run,clips/a.mp4,train,film\n"
        f"run,{tmp_path / 'clips' / 'b.mp4'},test,film\n"
        "walk,far/../far/c.mp4,TRAIN,\n"
        "walk,clips/folder,val,x\n"
        '"walk","clips/#d, e.mp4",,\n',
        encoding="utf-8",
    )
    dataset = load_dataset(file)
    assert (dataset.format, dataset.name, dataset.root) == ("csv", "list", tmp_path)
    assert [(v.id, v.label, v.source) for v in dataset.videos] == [
        ("clips/#d, e.mp4", "walk", "clips/#d, e.mp4"),
        ("clips/a.mp4", "run", "film"),
        ("clips/b.mp4", "run", "film"),
        ("clips/folder", "walk", "x"),
        ("far/c.mp4", "walk", "far/c.mp4"),
    ]
    (split,) = dataset.official
    assert (split.name, split.train, split.test) == ("official-1", ("clips/a.mp4", "far/c.mp4"), ("clips/b.mp4",))
    assert dataset.notes[:2] == (
        "1 validation video: neither trained on nor scored, unless select_on=val chooses by them",
        "1 video in no set: `clips/#d, e.mp4`",
    )
    assert load_dataset(file, name="other").name == "other"


def test_csv_outside_its_folder(tmp_path):
    make(tmp_path, "far/c.mp4", "far/d.mp4")
    (tmp_path / "near").mkdir()
    file = tmp_path / "near" / "list.csv"
    file.write_text(f"path,label\n../far/c.mp4,a\n{tmp_path / 'far' / 'd.mp4'},b\n")
    dataset = load_dataset(file)
    assert {video.id for video in dataset.videos} == {"../far/c.mp4", f"{tmp_path / 'far' / 'd.mp4'}"}
    assert dataset.official == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,split\na.mp4,train\n", "has no column `label`; its first line must read path,label"),
        ("", "has no column `path`"),
        ("path,label\n", "lists no video"),
        ("path,label\na.mp4,run\na.mp4,walk\n", "line 3: `a.mp4` is already in line 2"),
        ("path,label\na.mp4,run\n./x/../a.mp4,run\n", "line 3: `a.mp4` is already in line 2"),
        ("path,label\na.mp4,run\ngone.mp4,run\nalso.mp4,run\n", "line 3: no video `gone.mp4` in"),
        ("path,label\na.mp4,\n", "line 2: empty label"),
        ("path,label\n,run\n", "line 2: empty path"),
        ("path,label,split\na.mp4,run,holdout\n", "line 2: split `holdout`; expected train, test, val"),
        ("path,label,split\na.mp4,run,train\n", "column `split` names no test video"),
        ('path,label\n"a"b,run\n', "is not a CSV in UTF-8"),
    ],
)
def test_csv_errors_are_one_line_with_the_place(tmp_path, text, message):
    make(tmp_path, "a.mp4")
    file = tmp_path / "list.csv"
    file.write_text(text)
    with pytest.raises(ActionVitError) as caught:
        load_dataset(file)
    assert message in str(caught.value) and "\n" not in str(caught.value) and str(file) in str(caught.value)


def test_a_csv_in_another_encoding_is_refused_by_name(tmp_path):
    file = tmp_path / "list.csv"
    file.write_bytes("path,label\ncafé.mp4,run\n".encode("latin-1"))
    with pytest.raises(ActionVitError, match=r"list\.csv` is not a CSV in UTF-8"):
        load_dataset(file)
    with pytest.raises(ActionVitError, match="no file"):
        load_dataset(tmp_path / "gone.csv")
    with pytest.raises(ActionVitError, match="splits_dir= is for folders"):
        load_dataset(file, splits_dir=tmp_path)


def test_errors_of_a_folder_say_what_where_and_the_remedy(tmp_path):
    def error(root: Path, **options) -> str:
        with pytest.raises(ActionVitError) as caught:
            load_dataset(root, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "actionvit data fetch hmdb51" in error(tmp_path / "gone") and "gone" in error(tmp_path / "gone")
    assert "a file that is no .csv" in error(make(tmp_path, "movie.avi") / "movie.avi")
    assert "expected" in error(make(tmp_path / "bare", "x.txt"))
    assert "sort them into class folders" in error(make(tmp_path / "flat", "x.avi"))
    assert f"did you mean `{tmp_path / 'nested' / 'hmdb51'}`?" in error(make(tmp_path / "nested", "hmdb51/clap/x.avi"))
    simp = make(tmp_path / "zip", "HMDB_simp/clap/x/1.jpg")
    assert f"did you mean `{simp / 'HMDB_simp'}`?" in error(simp)
    (make(tmp_path / "set", "clap/x.avi") / "run").mkdir()
    assert "class folder `run`" in error(tmp_path / "set") and "remove the folder" in error(tmp_path / "set")
    assert "expected one of hmdb51, frames, folder, csv" in error(tmp_path / "set", format="avi")


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    root = make(tmp_path / "set", "a/1.mp4")
    (root / "b").symlink_to(root / "b")  # a link to itself: even the superuser cannot read it
    with pytest.raises(ActionVitError, match=r"cannot read `.*/b`"):
        load_dataset(root)


def test_errors_of_split_lists(tmp_path):
    root = make(tmp_path / "set", "clap/x.avi", "clap/y.avi", "run/z.avi")
    write_lists(root / "splits", "clap", {"x.avi": 1, "y.avi": 2})
    write_lists(root / "splits", "run", {"other.avi": 1})
    with pytest.raises(ActionVitError, match=r"run_test_split1\.txt` names none of the 1 video in class folder `run`"):
        load_dataset(root)
    write_lists(root / "splits", "run", {"z.avi": 1})
    assert len(load_dataset(root).official) == 1
    write_lists(root / "splits", "clap", {"x.avi": 1, "y.avi": 3})
    with pytest.raises(ActionVitError, match=r"clap_test_split1\.txt` line 2: `y\.avi 3`; expected `NAME\.avi CODE`"):
        load_dataset(root)
    write_lists(root / "splits", "clap", {"x.avi": 1, "y.avi": 1})
    with pytest.raises(ActionVitError, match="split 1 has 3 training videos and 0 test videos here"):
        load_dataset(root)
    with pytest.raises(ActionVitError, match=r"no `CLASS_test_split1\.txt` in"):
        load_dataset(root, splits_dir=tmp_path)
    with pytest.raises(ActionVitError, match="cannot read"):
        load_dataset(root, splits_dir=tmp_path / "gone")


@pytest.mark.parametrize(
    ("stem", "label", "source"),
    [
        ("April_09_brush_hair_u_nm_np1_ba_goo_0", "brush_hair", "April_09"),
        ("A_draw_sword_draw_sword_u_nm_np1_fr_bad_0", "draw_sword", "A_draw_sword"),
        ("Film_kick_ball_f_cm_np1_fr_bad_0", "sports", "Film"),  # relabeled: the name still contains its class
        ("Film_juggle_f_cm_np1_fr_bad_0", "juggle", "Film"),
        ("v_ApplyEyeMakeup_g01_c03", "ApplyEyeMakeup", "v_ApplyEyeMakeup_g01"),
        ("some_video", "clap", None),
        ("Film_clap_x_cm_np1_fr_bad_0", "clap", None),
    ],
)
def test_sources(stem, label, source):
    assert parse_source(stem, label) == source


def test_metadata(tmp_path):
    root = make(tmp_path / "set", "clap/Film_clap_u_cm_np2_le_bad_7.avi", "clap/free.avi")
    known, free = load_dataset(root).videos
    metadata = parse_metadata(stem(known.id))
    assert metadata is not None
    assert metadata._asdict() == {
        "body_part": "upper body",
        "camera_motion": "camera moves",
        "people": 2,
        "viewpoint": "left",
        "quality": "bad",
    }
    assert parse_metadata(stem(free.id)) is None
    dataset = load_dataset(root)
    assert dataset.sources_known
    assert "1 name without a source, each its own: `clap/free.avi`" in dataset.notes
    assert not any("HMDB51" in note for note in dataset.notes)
    assert "official split lists are not in or beside the folder" in check(dataset, decode=False).notes[-1]


def test_loading_imports_no_heavy_packages():
    code = (
        "import sys, actionvit.pipeline.datasets.loading; print({'torch', 'sklearn', 'av', 'h5py'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
