"""Options and settings that another choice makes meaningless are refused, not ignored."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_features import write_dataset, write_store

import actionvit as av
from actionvit.cli import main
from actionvit.errors import SettingError
from actionvit.pipeline.datasets import Dataset, load_dataset

pytestmark = pytest.mark.usefixtures("own_logging")

UNUSED = "which {} splits do not use; leave it out, or choose another {}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a dataset `data`, official lists of it in `lists`, and a store in `cache`."""
    monkeypatch.chdir(tmp_path)
    dataset = write_dataset(tmp_path / "data", sources=4)
    (tmp_path / "lists").mkdir()
    for label in dataset.class_names:
        names = [video.id.partition("/")[2] for video in dataset.videos if video.label == label]
        lines = [f"{name} {1 if number < 6 else 2}" for number, name in enumerate(names)]
        for split in (1, 2, 3):
            (tmp_path / "lists" / f"{label}_test_split{split}.txt").write_text("\n".join(lines))
    write_store(tmp_path / "cache", dataset)
    return tmp_path


@pytest.fixture
def dataset(place: Path) -> Dataset:
    return load_dataset(place / "data", splits_dir=place / "lists")


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that is refused with exit code 2; return its error, which is one line."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    errors = capsys.readouterr().err
    assert ended.value.code == 2, errors
    (line,) = [line for line in errors.splitlines() if line.lower().startswith("error: ")]
    return line


COMMANDS = {
    "probe": ("probe", "--cache", "cache"),
    "finetune": ("finetune", "--variant", "tiny", "--device", "cpu"),
    "sweep": ("sweep", "--variant", "tiny", "--device", "cpu"),
    "experiment": ("experiment", "shots", "--cache", "cache"),
    "data": ("data", "splits"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_number_that_the_splits_do_not_use_is_refused(
    name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (*COMMANDS[name], "data", "--splits-dir", "lists", "--protocol")
    error = refusal(capsys, *command, "official", "--folds", 99)
    assert "--folds: got 99, " + UNUSED.format("official", "--protocol (grouped, stratified, random)") in error
    error = refusal(capsys, *command, "grouped", "--test-fraction", 0.3)
    assert "--test-fraction: got 0.3, " + UNUSED.format("grouped", "--protocol (stratified, random)") in error


def test_the_default_protocol_refuses_what_it_does_not_use(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = refusal(capsys, "probe", "data", "--splits-dir", "lists", "--cache", "cache", "--folds", 3)
    assert "--folds: got 3, which official splits do not use" in error


@pytest.mark.parametrize("function", [av.probe, av.finetune])
def test_functions_refuse_a_number_that_splits_do_not_use(function: type, dataset: Dataset) -> None:
    with pytest.raises(SettingError, match=r"folds: got 5, which official .* choose another protocol="):
        function(dataset, "base" if function is av.probe else "tiny", cache="cache", protocol="official", folds=5)
    with pytest.raises(SettingError, match=r"test_fraction: got 0\.2, which grouped splits do not use"):
        av.make_splits(dataset, "grouped", test_fraction=0.2)


def test_comparing_all_protocols_uses_each_number_where_it_can(place: Path) -> None:
    where = ("data", "--splits-dir", "lists", "--folds", "3", "--test-fraction", "0.4")
    for command in (
        ("data", "splits", *where),
        ("experiment", "splits", *where, "--cache", "cache", "--head", "centroid", "--seeds", "1", "-o", "out"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == 0


def test_runs_record_the_numbers_of_their_splits(place: Path, dataset: Dataset) -> None:
    run = av.probe(dataset, cache="cache", head="centroid", protocol="official")
    assert (run.info["spec"]["folds"], run.info["spec"]["test_fraction"]) == (5, 0.3)


REFUSED = (
    ("extract data --address auto", "only --engine ray has a cluster; leave out --address"),
    ("extract data --engine here --address auto", "only --engine ray has a cluster; leave out --address"),
    ("extract data --shards 2", "only --engine divides the work; leave out --shards"),
    ("extract data --encoder x --weights y", "--weights y: only variants take weights; add --variant, or leave it out"),
    ("report run --device cpu", "only --attention runs an encoder; leave out --device"),
    ("report run --weights base", "only --attention runs an encoder; leave out --weights"),
    ("report run --no-thumbnails --root data", "--no-thumbnails reads no clips; leave out --root"),
    ("report run --no-embeddings --projection tsne", "--no-embeddings projects nothing; leave out --projection"),
    ("data check data --workers 0", "only --decode decodes videos; leave out --workers"),
    ("data splits data --protocol official --seed 1", "--protocol official draws nothing; leave out --seed"),
    (
        "cache export store -o out --format npy-folder --include layer1",
        "--format npy-folder writes frame embeddings alone; leave out --include",
    ),
    ("probe data --protocol mveb --jobs 4", "--protocol mveb fixes classifier and draws; leave out --jobs"),
    ("probe data --protocol mveb --device cpu", "--protocol mveb fixes classifier and draws; leave out --device"),
)


@pytest.mark.parametrize(("command", "error"), REFUSED, ids=[command for command, _ in REFUSED])
def test_an_option_without_effect_is_refused(command: str, error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys, *command.split()) == f"Error: {error}"


def test_ranges_of_augmentations_that_are_off_are_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = "finetune data --variant tiny --device cpu --no-augment-flip --no-flip-class nothing --color-ops 0"
    with pytest.raises(SystemExit):  # later, since there is no such class
        main([*command.split(), "--magnitude", "1"])
    errors = capsys.readouterr().err
    assert "warning: --no-flip-class does nothing with --no-augment-flip" in errors
    assert "warning: --magnitude does nothing with --color-ops 0" in errors
