"""Split protocols: their guarantees about sources, classes and seeds."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from actionvit.errors import ActionVitError
from actionvit.pipeline.datasets import Dataset, Split, Video, load_dataset
from actionvit.pipeline.datasets.loading import reload
from actionvit.pipeline.datasets.splits import leaking_sources, leaking_videos, make_splits

PROTOCOLS = ("grouped", "stratified", "random")


def dataset(rows: list[tuple[str, str, str]], **fields) -> Dataset:
    """Build a dataset from (id, label, source)."""
    videos = tuple(Video(id=id, path=Path(id), label=label, source=source) for id, label, source in sorted(rows))
    names = tuple(sorted({video.label for video in videos}))
    return Dataset(name="d", root=Path(), format="folder", videos=videos, class_names=names, **fields)


@pytest.fixture(scope="module")
def films() -> Dataset:
    """7 classes of 12 to 48 clips; films of 1 to 6 clips, some with clips in two classes."""
    rng = np.random.RandomState(0)
    rows = []
    for number in range(7):
        left, film = 12 + 6 * number, 0
        while left:
            size = min(left, rng.randint(1, 7))
            name = f"shared-{film}" if film % 4 == 0 else f"{number}-{film}"
            rows += [(f"c{number}/{name}-{n}", f"c{number}", name) for n in range(size)]
            left, film = left - size, film + 1
    return dataset(rows)


def sides(data: Dataset, split: Split) -> tuple[set[str], set[str]]:
    source = {video.id: video.source for video in data.videos}
    return {source[id] for id in split.train}, {source[id] for id in split.test}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_sides_are_sorted_apart_and_whole(films, protocol):
    made = make_splits(films, protocol, folds=4)
    assert [split.name for split in made] == [f"{protocol}-{n}" for n in (1, 2, 3, 4)]
    for split in made:
        assert list(split.train) == sorted(split.train) and list(split.test) == sorted(split.test)
        assert sorted(split.train + split.test) == [video.id for video in films.videos]
    assert len({split.test for split in made}) == 4


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_only_ids_and_the_seed_decide(films, protocol):
    made = make_splits(films, protocol, seed=3)
    np.random.seed(99)
    assert make_splits(films, protocol, seed=3) == made
    assert make_splits(films, protocol, seed=4) != made
    elsewhere = dataset([(video.id, video.label, video.source) for video in reversed(films.videos)])
    assert make_splits(elsewhere, protocol, seed=3) == made


@pytest.mark.parametrize("protocol", ["grouped", "random"])
def test_names_of_classes_do_not_change_a_split(films, protocol):
    tied = dataset([(f"{n:03}", f"c{n % 6}", f"film{n // 3}") for n in range(180)])  # all counts tie
    for data in (films, tied):
        names = dict(zip(data.class_names, reversed(data.class_names), strict=True))
        renamed = dataset([(video.id, names[video.label], video.source) for video in data.videos])
        for seed in range(5):
            made = make_splits(data, protocol, seed=seed)
            assert [split.test for split in make_splits(renamed, protocol, seed=seed)] == [s.test for s in made]


def test_repeats_do_not_depend_on_how_many_there_are(films):
    for protocol in ("stratified", "random"):
        assert make_splits(films, protocol, folds=6)[:2] == make_splits(films, protocol, folds=2)


def test_grouped_keeps_sources_apart_and_tests_each_video_once(films):
    made = make_splits(films, "grouped")
    for split in made:
        train, test = sides(films, split)
        assert not train & test
        assert leaking_sources(films, split, within_class=False) == ()
    assert sorted(itertools.chain.from_iterable(split.test for split in made)) == [v.id for v in films.videos]


def test_grouped_balances_classes(films):
    label = {video.id: video.label for video in films.videos}
    for split in make_splits(films, "grouped"):
        for name in films.class_names:
            total = sum(video.label == name for video in films.videos)
            tested = sum(label[id] == name for id in split.test)
            # A film holds up to 6 clips of a class. (Films dealt out by chance miss by 10 somewhere.)
            assert abs(tested - total / 5) <= 4, (split.name, name)
        assert abs(len(split.test) / len(films.videos) - 0.2) < 0.06


def test_grouped_is_as_balanced_as_scikit_learn(real_data):
    from sklearn.model_selection import StratifiedGroupKFold

    data = load_dataset(real_data / "jhmdb21")
    label = np.array([video.label for video in data.videos])
    source = np.array([video.source for video in data.videos])
    ids = np.array([video.id for video in data.videos])

    def spread(tests) -> float:
        shares = [[np.mean(np.isin(ids[label == name], test)) for name in data.class_names] for test in tests]
        return float(np.std(shares))

    for seed in range(3):
        ours = spread([split.test for split in make_splits(data, "grouped", seed=seed)])
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(label, label, source)
        assert ours < 1.1 * spread([ids[test] for _, test in folds])


def test_the_splits_of_the_real_clips_are_these(real_data):
    """Published results depend on these splits: a seed must always give the same ones."""
    data = load_dataset(real_data / "jhmdb21")
    digests = {
        protocol: hashlib.sha256(json.dumps([split.test for split in make_splits(data, protocol)]).encode()).hexdigest()
        for protocol in PROTOCOLS
    }
    assert {protocol: digest[:12] for protocol, digest in digests.items()} == {
        "grouped": "b3b3b86138c0",
        "stratified": "ab4812a8d310",
        "random": "01d794c0d3a5",
    }


def test_stratified_takes_its_share_of_every_class(films):
    label = {video.id: video.label for video in films.videos}
    for split in make_splits(films, "stratified", test_fraction=0.25):
        for name in films.class_names:
            total = sum(video.label == name for video in films.videos)
            assert sum(label[id] == name for id in split.test) == round(0.25 * total)


def test_random_takes_its_share_of_the_whole(films):
    for split in make_splits(films, "random", test_fraction=0.25):
        assert len(split.test) == round(0.25 * len(films.videos))


def test_small_classes_stand_on_both_sides_or_train(caplog):
    data = dataset(
        [(f"a/{n}", "a", f"{n}") for n in range(10)] + [("b/0", "b", "b"), ("c/0", "c", "c"), ("c/1", "c", "d")]
    )
    for split in make_splits(data, "stratified", test_fraction=0.05):
        label = [id[0] for id in split.test]
        assert (label.count("a"), label.count("b"), label.count("c")) == (1, 0, 1)
    with caplog.at_level(logging.WARNING):
        make_splits(data, "grouped", folds=3)
    assert "grouped-1: no training video of b (1 of 4 test videos cannot be right)" in caplog.messages


def test_leaks_count_within_a_class_unless_asked(films):
    data = dataset([("a/1", "a", "film"), ("a/2", "a", "film"), ("b/1", "b", "film"), ("b/2", "b", "other")])
    within = Split(name="s", train=("a/1", "b/2"), test=("a/2", "b/1"))
    across = Split(name="s", train=("a/1", "a/2"), test=("b/1", "b/2"))
    assert leaking_sources(data, within) == ("film",)
    assert leaking_sources(data, across) == ()
    assert leaking_sources(data, across, within_class=False) == ("film",)
    assert all(leaking_sources(films, split) for split in make_splits(films, "stratified"))


def test_official_lists_keep_a_class_apart_but_for_spellings(real_data):
    data = load_dataset(real_data / "jhmdb21")
    leaking = [leaking_sources(data, split) for split in make_splits(data, "official")]
    assert leaking == [(), ("Boom_Snap_Clap", "_Boom_Snap_Clap__challenge"), ("_Boom_Snap_Clap__challenge",)]


@pytest.fixture(scope="module")
def hmdb51(real_data, tmp_path_factory) -> Dataset:
    """All 6,766 names of HMDB51's lists, as empty files."""
    root = tmp_path_factory.mktemp("names") / "hmdb51"
    for file in (real_data / "hmdb51_splits").glob("*_test_split1.txt"):
        folder = root / file.name.removesuffix("_test_split1.txt")
        folder.mkdir(parents=True)
        for line in file.read_text().splitlines():
            (folder / line.split()[0]).touch()
    return load_dataset(root, splits_dir=real_data / "hmdb51_splits")


def test_numbered_parts_of_a_film_are_one_source(hmdb51):
    merged = hmdb51.merged_sources
    assert len(merged["RETURN_OF_THE_KING"]) == 14 and len(merged["A_Beautiful_Mind"]) == 6
    assert set(merged["Hitch"]) == {"Hitch_Part_1", "Hitch_Part_2"}
    assert set(merged["Boom_Snap_Clap"]) == {"Boom_Snap_Clap", "boom-snap-clap"}
    apart = {name for names in merged.values() for name in names}
    for prefix in ("smoking", "handstand", "Oceans", "Goalkeeper", "hechtsprung"):
        assert not [name for name in apart if name.lower().startswith(prefix.lower())], prefix
    assert len({video.source for video in hmdb51.videos}) == 1325


def test_grouped_folds_keep_films_whole(hmdb51):
    for split in make_splits(hmdb51, "grouped"):
        for film in ("/Return_of_the_King", "/A_Beautiful_Mind_", "/The_Matrix_Revolutions"):
            assert not any(film in id for id in split.train) or not any(film in id for id in split.test)
        assert leaking_videos(hmdb51, split, within_class=False) == ()


def test_film_leaks_of_the_official_lists_are_counted(hmdb51):
    official = make_splits(hmdb51, "official")
    assert [len(leaking_videos(hmdb51, split)) for split in official] == [85, 99, 107]
    assert [len(leaking_videos(hmdb51, split, within_class=False)) for split in official] == [473, 554, 558]


def test_own_source_column_wins_over_merging(tmp_path):
    lines = ["path,label,source"]
    for number, label in enumerate(("clap", "run", "walk")):
        name = f"Film_{number + 1}_{label}_f_cm_np1_fr_med_0.avi"
        (tmp_path / name).touch()
        lines.append(f"{name},{label},Film_{number + 1}")
    (tmp_path / "own.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "names.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines) + "\n")
    assert {video.source for video in load_dataset(tmp_path / "own.csv").videos} == {"Film_1", "Film_2", "Film_3"}
    merged = load_dataset(tmp_path / "names.csv")
    assert {video.source for video in merged.videos} == {"Film"}
    assert any("3 source names are parts or spellings of 1 film" in note for note in merged.notes)


def test_classes_tested_but_never_trained_are_warned_of(caplog):
    split = Split(name="official-1", train=("a/1",), test=("a/2", "b/1"))
    data = dataset([("a/1", "a", "x"), ("a/2", "a", "y"), ("b/1", "b", "z")], official=(split,))
    with caplog.at_level(logging.WARNING):
        make_splits(data, "official")
    assert "official-1: no training video of b (1 of 2 test videos cannot be right)" in caplog.messages


def test_errors(films):
    with pytest.raises(ActionVitError, match="no official splits; give splits_dir=, or choose protocol=grouped"):
        make_splits(films, "official")
    few = dataset([("a/1", "a", "x"), ("a/2", "a", "y"), ("b/1", "b", "x")])
    with pytest.raises(ActionVitError, match="2 sources cannot make 3 folds"):
        make_splits(few, "grouped", folds=3)
    one = dataset([("a/1", "a", "x")])
    for protocol in ("stratified", "random"):
        with pytest.raises(ActionVitError, match="too few for split"):
            make_splits(one, protocol)
    for protocol, wrong in (
        ("grouped", {"folds": 1}),
        ("stratified", {"test_fraction": 0.0}),
        ("random", {"test_fraction": 1.0}),
        ("grouped", {"seed": -1}),
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            make_splits(films, protocol, **wrong)
    with pytest.raises(ValueError, match="expected one of official, grouped, stratified, random"):
        make_splits(films, "loo")  # type: ignore[arg-type]


def test_official_lists_are_read_again_if_they_are_there(tmp_path: Path, sixty: Path) -> None:
    root = tmp_path / "clips"
    shutil.copytree(sixty, root)
    dataset = load_dataset(root)
    record = {"layout": dataset.format, "root": str(root), "dataset": dataset.name}
    assert dataset.format == "hmdb51" and reload(record, official=True).official == dataset.official
    assert reload(record).official == ()
    for lists in {file.parent for file in root.rglob("*_test_split1.txt")}:
        shutil.rmtree(lists)
    assert reload(record, official=True).official == ()
    assert [video.label for video in reload(record, official=True).videos] == [video.label for video in dataset.videos]
