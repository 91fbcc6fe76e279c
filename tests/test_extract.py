"""Stage 1 end to end on drawn and real clips, and the ways it can be interrupted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from actionvit.cli import cli
from actionvit.errors import ActionVitError
from actionvit.features.decoding import Frames, decode, decode_stream
from actionvit.features.failures import Failure
from actionvit.features.store.catalog import in_shard
from actionvit.features.store.store import FeatureStore
from actionvit.features.timesformer.checkpoint import find_weights
from actionvit.features.timesformer.encoder import Encoder
from actionvit.features.timesformer.variants import clip_spec
from actionvit.features.view_settings import ViewSettings
from actionvit.pipeline.datasets import load_dataset
from actionvit.pipeline.datasets.synthetic.dataset import write_avi
from actionvit.pipeline.extraction import extract as extraction
from actionvit.pipeline.extraction.extract import extract
from actionvit.pipeline.extraction.job import Job


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six small clips of two classes."""
    random = np.random.RandomState(0)
    for label in ("hop", "run"):
        (tmp_path / "clips" / label).mkdir(parents=True)
        for number in range(3):
            frames = random.randint(0, 256, (10 + number, 48, 64, 3)).astype(np.uint8)
            write_avi(tmp_path / "clips" / label / f"{label}{number}.avi", frames)
    return tmp_path / "clips"


class Counting:
    """An encoder that records the videos it encodes."""

    batch_videos = 2
    seconds: Mapping[str, float] = {"copy": 0.0, "prepare": 0.0, "forward": 0.0}

    def __init__(self) -> None:
        self.seen: list[int] = []

    def submit(self, videos: Sequence[Frames]) -> Done:
        self.seen += [frames.count for frames in videos]
        return Done([{"clip": np.full((1, 4), frames.data.mean(), np.float32)} for frames in videos])


@dataclass
class Done:
    """The result of `Counting`."""

    rows: list[dict[str, NDArray[np.generic]]]

    def done(self) -> bool:
        return True

    def result(self) -> list[dict[str, NDArray[np.generic]]]:
        return self.rows


def job(variant: str = "tiny") -> Job:
    return Job(variant=variant, weights=find_weights(variant), spec=clip_spec(variant))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(each) for each in arguments])


def test_rows_equal_encoding_each_video_alone(root: Path, tmp_path: Path) -> None:
    dataset = load_dataset(root)
    summary = extract(dataset, [job()], cache=tmp_path / "cache", workers=1)
    store = FeatureStore.open(summary.outcomes[0].store)
    assert store.ids == [video.id for video in dataset.videos]
    encoder = Encoder(find_weights("tiny"), clip_spec("tiny"), device="cpu")
    for video in dataset.videos:
        alone = encoder.encode(decode(video.path, [clip_spec("tiny")]))
        for name, expected in alone.items():
            np.testing.assert_array_equal(store.read([video.id], name)[0], expected)


def test_nothing_is_embedded_twice(root: Path, tmp_path: Path) -> None:
    dataset, encoder = load_dataset(root), Counting()
    settings = {"cache": tmp_path / "cache", "workers": 0, "make_encoder": lambda job, device: encoder}
    first = extract(dataset, [job()], **settings)  # type: ignore[arg-type]
    assert (first.outcomes[0].embedded, len(encoder.seen)) == (6, 6)
    again = extract(dataset, [job()], **settings)  # type: ignore[arg-type]
    assert (again.outcomes[0].cached, len(encoder.seen)) == (6, 6)
    write_avi(root / "run" / "run1.avi", np.zeros((20, 48, 64, 3), np.uint8))
    changed = extract(load_dataset(root), [job()], **settings)  # type: ignore[arg-type]
    assert changed.outcomes[0].embedded == 1 and encoder.seen[6:] == [20]


def test_a_moved_or_relabelled_dataset_is_not_embedded_again(root: Path, tmp_path: Path) -> None:
    encoder = Counting()
    settings = {"cache": tmp_path / "cache", "workers": 0, "make_encoder": lambda job, device: encoder}
    extract(load_dataset(root), [job()], **settings)  # type: ignore[arg-type]
    moved = tmp_path / "elsewhere" / "clips"
    shutil.copytree(root, moved)
    (moved / "hop" / "hop0.avi").rename(moved / "run" / "hop0.avi")
    summary = extract(load_dataset(moved), [job()], **settings)  # type: ignore[arg-type]
    assert summary.outcomes[0].embedded == 0 and summary.outcomes[0].reused == 1
    assert len(encoder.seen) == 6


def test_one_decode_serves_several_variants(root: Path, tmp_path: Path) -> None:
    summary = extract(load_dataset(root), [job("tiny"), job("tiny-hr")], cache=tmp_path / "cache", workers=0)
    assert summary.decoded == 6
    assert [outcome.embedded for outcome in summary.outcomes] == [6, 6]
    shapes = [FeatureStore.open(outcome.store).quantities["frame"][0] for outcome in summary.outcomes]
    assert shapes == [(1, 8, 128), (1, 16, 128)]


def test_shards_part_the_dataset_by_id_alone(root: Path, tmp_path: Path) -> None:
    ids = [video.id for video in load_dataset(root).videos]
    parts = [[video_id for video_id in ids if in_shard(video_id, (part, 3))] for part in (1, 2, 3)]
    assert sorted(video_id for part in parts for video_id in part) == ids
    summary = extract(load_dataset(root), [job()], cache=tmp_path / "cache", workers=0, shard=(1, 3))
    assert FeatureStore.open(summary.outcomes[0].store).ids == parts[0]


def test_bad_videos_cost_themselves_alone_and_exit_with_3(root: Path, tmp_path: Path) -> None:
    (root / "run" / "text.avi").write_text("not a video")
    (root / "run" / "empty.avi").touch()
    result = run("extract", root, "--variant", "tiny", "--cache", tmp_path / "cache", "--json")
    assert result.exit_code == 3
    outcome = json.loads(result.stdout)["outcomes"][0]
    assert (outcome["rows"], outcome["failed"]) == (6, 2)
    failures = FeatureStore.open(Path(outcome["store"])).failures()
    assert {failure.id: failure.reason for failure in failures} == {
        "run/empty.avi": "empty",
        "run/text.avi": "not_video",
    }
    again = json.loads(run("extract", root, "--variant", "tiny", "--cache", tmp_path / "cache", "--json").stdout)
    assert again["decoded"] == 0, "known failures are not tried again"
    write_avi(root / "run" / "text.avi", np.zeros((9, 48, 64, 3), np.uint8))
    mended = json.loads(run("extract", root, "--variant", "tiny", "--cache", tmp_path / "cache", "--json").stdout)
    assert (mended["outcomes"][0]["embedded"], mended["outcomes"][0]["failed"]) == (1, 1)


def test_a_dry_run_tells_copies_and_failures_of_any_variant(root: Path, tmp_path: Path) -> None:
    cache, bad = tmp_path / "cache", [root / "run" / f"bad{number}.avi" for number in range(2)]
    for path, variant in zip(bad, ("tiny", "tiny-hr"), strict=True):
        path.write_text(f"not a video {path.name}")
        extract(load_dataset(root), [job(variant)], cache=cache, workers=0)
        path.rename(tmp_path / path.name)
    for path in bad:
        (tmp_path / path.name).rename(path)
    (root / "run" / "run0.avi").rename(root / "hop" / "run0.avi")
    jobs = [job("tiny"), job("tiny-hr")]
    summary = extract(load_dataset(root), jobs, cache=cache, dry_run=True)
    assert [(outcome.reused, outcome.cached, outcome.failed) for outcome in summary.outcomes] == [(1, 5, 1)] * 2
    assert summary.failed == 2, "each variant lacks another one"
    assert [one.reused for one in extract(load_dataset(root), jobs, cache=cache, workers=0).outcomes] == [1, 1]


def test_a_killed_extraction_resumes_to_the_same_store(root: Path, tmp_path: Path) -> None:
    for number in range(30):
        frames = np.random.RandomState(number).randint(0, 256, (12, 48, 64, 3)).astype(np.uint8)
        write_avi(root / "run" / f"more{number}.avi", frames)
    whole = extract(load_dataset(root), [job("tiny")], cache=tmp_path / "whole", workers=0).outcomes[0].store
    # At the tenth video the process is gone, as by the kernel's OOM killer; rows are published at every append.
    script = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from actionvit.features.timesformer.variants import clip_spec\n"
        "from actionvit.features.timesformer.checkpoint import find_weights\n"
        "from actionvit.pipeline.datasets import load_dataset\n"
        "from actionvit.pipeline.extraction.extract import extract\n"
        "from actionvit.pipeline.extraction.job import Job\n"
        "kill = lambda done, total: done == 10 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "job = Job(variant='tiny', weights=find_weights('tiny'), spec=clip_spec('tiny'))\n"
        "dataset, cache = load_dataset(Path(sys.argv[1])), Path(sys.argv[2])\n"
        "extract(dataset, [job], cache=cache, workers=0, flush_seconds=0, on_video=kill)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, root, tmp_path / "cut"], check=False)
    assert killed.returncode == -9
    cut = FeatureStore.open(next((tmp_path / "cut" / "clips").iterdir()))
    held = len(cut)
    assert 5 <= held < 36
    summary = extract(load_dataset(root), [job("tiny")], cache=tmp_path / "cut", workers=0)
    assert summary.outcomes[0].embedded == 36 - held
    cut.refresh()
    assert cut.digest() == FeatureStore.open(whole).digest()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere"),
        (["ROOT", "--variant", "huge"], "expected one of base, hr, large, tiny, tiny-hr"),
        (["ROOT", "--variant", "large"], "give --weights"),
        (["ROOT", "--variant", "tiny", "--size", "100"], "multiple of the model's patch"),
        (["ROOT", "--weights", "/no/such/folder"], "no such folder or file"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    root: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    filled = [str(root) if each == "ROOT" else each for each in arguments]
    result = run("extract", *filled, "--cache", tmp_path / "cache")
    assert isinstance(result.exception, ActionVitError)
    assert message in str(result.exception) and "\n" not in str(result.exception)
    assert not (tmp_path / "cache").exists()


def test_the_front_door_turns_mistakes_into_exit_code_1(tmp_path: Path) -> None:
    environment = {**os.environ, "ACTIONVIT_ROOT": str(tmp_path / "nowhere")}
    done = subprocess.run(
        [sys.executable, "-m", "actionvit", "extract"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_a_rerun_over_an_unchanged_dataset_loads_no_torch(root: Path, tmp_path: Path) -> None:
    extract(load_dataset(root), [job()], cache=tmp_path / "cache", workers=0)
    code = (
        "import sys\nfrom actionvit.cli import cli\n"
        f"cli(['extract', {str(root)!r}, '--variant', 'tiny', '--cache', {str(tmp_path / 'cache')!r}],"
        " standalone_mode=False)\nassert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_real_clips_go_from_folder_to_report(real_data: Path, tmp_path: Path) -> None:
    root = tmp_path / "few"
    for label in ("clap", "walk"):
        (root / label).mkdir(parents=True)
        for path in sorted((real_data / "jhmdb21" / label).glob("*.avi"))[:8]:
            (root / label / path.name).symlink_to(path)
    cache, runs = ("--cache", tmp_path / "cache"), ("--runs", tmp_path / "runs")
    assert run("extract", root, "--variant", "tiny", "--variant", "tiny-hr", *cache).exit_code == 0
    probe = ("probe", root, "--variant", "tiny", "--variant", "tiny-hr", "--folds", 3, "--seeds", 1, *cache, *runs)
    assert run(*probe, "--balanced").exit_code == 0
    folders = sorted((tmp_path / "runs").iterdir())
    assert [folder.name for folder in folders] == ["tiny-hr-linear-balanced", "tiny-linear-balanced"]
    first = {path.name: path.read_bytes() for path in folders[0].glob("[mph]*.*")}
    assert run(*probe, "--balanced").exit_code == 0
    assert first == {path.name: path.read_bytes() for path in folders[0].glob("[mph]*.*")}, (
        "a rerun gives the same bytes"
    )
    result = run("report", *folders, "--output", tmp_path / "report")
    assert result.exit_code == 0
    assert (tmp_path / "report" / "report.html").stat().st_size < 8_000_000


@pytest.mark.parametrize("again", [False, True])
def test_video_that_ran_out_of_memory_is_decoded_alone(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    calls: list[tuple[int | None, list[str]]] = []

    def stream(requests: Any, *, workers: int | None, **options: Any) -> Any:
        requests = list(requests)
        calls.append((workers, [request.id for request in requests]))
        starved = "hop/hop1.avi" if workers == 2 or again else None
        for item in decode_stream(iter(requests), workers=0, **options):
            lost = Failure(id=item.id, reason="crashed", detail="killed (SIGKILL): perhaps out of memory")
            yield lost if item.id == starved else item

    monkeypatch.setattr(extraction, "decode_stream", stream)
    job = Job(variant="tiny", weights=find_weights("tiny"), spec=clip_spec("tiny", ViewSettings(num_frames=2, size=32)))
    summary = extract(
        load_dataset(root), [job], cache=tmp_path / "cache", workers=2, make_encoder=lambda *_: Counting()
    )
    assert calls[1:] == [(1, ["hop/hop1.avi"])] and len(calls[0][1]) == 6
    assert (summary.outcomes[0].rows, summary.failed) == ((5, 1) if again else (6, 0))
