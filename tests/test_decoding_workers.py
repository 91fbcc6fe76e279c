"""Supervised decoding: a misbehaving decoder affects only its video, and no process or memory is left behind."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import misbehaving_decoders
import numpy as np
import pytest
from click.testing import CliRunner, Result
from video_corpus import Film

import actionvit.pipeline.extraction.extract as stage
from actionvit.cli import cli
from actionvit.errors import ActionVitError
from actionvit.features.decoding import Decoded, DecodeRequest, decode, decode_stream
from actionvit.features.failures import Failure
from actionvit.features.sampling import ClipSpec

SPECS = (ClipSpec(num_frames=8, size=224),)
SUPERVISOR = "actionvit.features.decoding.pool.supervisor"
REASONS = {
    "sleeps": ("timeout", "not decoded within 2 s"),
    "hangs": ("timeout", "not decoded within 2 s"),
    "segfaults": ("crashed", "SIGSEGV"),
    "aborts": ("crashed", "SIGABRT: double free or corruption"),
    "kills-itself": ("crashed", "SIGKILL"),
    "exits": ("crashed", "exit code 7"),
    "eats-memory": ("memory", "more memory"),
    "raises": ("crashed", "LookupError: unexpected error"),
}


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Film(name="plain.avi").write(tmp_path_factory.mktemp("video"))


@pytest.fixture
def named(video: Path, tmp_path: Path) -> Callable[..., list[DecodeRequest]]:
    """Requests for copies of one video under the given names."""

    def make(*names: str) -> list[DecodeRequest]:
        for name in names:
            (tmp_path / f"{name}.avi").write_bytes(video.read_bytes())
        return [DecodeRequest(name, tmp_path / f"{name}.avi", SPECS) for name in names]

    return make


Named = Callable[..., list[DecodeRequest]]


@pytest.fixture
def misbehaving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers whose behavior is selected by the names of their videos."""
    misbehaving_decoders.install(monkeypatch)


def reasons(items: Iterator[Decoded | Failure]) -> dict[str, str]:
    return {item.id: item.reason if isinstance(item, Failure) else "" for item in items}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_answers_in_order_and_survives_bad_videos(tmp_path: Path, workers: int) -> None:
    good = [Film(name=f"{n}.avi", frames=10 + n).write(tmp_path) for n in range(5)]
    (tmp_path / "bad.avi").write_bytes(b"nothing")
    paths = [*good[:2], tmp_path / "bad.avi", *good[2:]]
    requests = [DecodeRequest(path.name, path, SPECS) for path in paths]
    found = list(decode_stream(requests, workers=workers))
    assert [item.id for item in found] == [path.name for path in paths]
    assert [isinstance(item, Failure) for item in found] == [False, False, True, False, False, False]
    for item in found:
        if isinstance(item, Decoded):
            np.testing.assert_array_equal(item.frames.data, decode(tmp_path / item.id, SPECS).data)


@pytest.mark.usefixtures("misbehaving")
def test_decoder_failure_affects_only_its_video(named: Named, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [name for bad in REASONS for name in (bad, f"good-{bad}")]
    expected = decode(video, SPECS).data
    monkeypatch.setattr(f"{SUPERVISOR}.MAX_MEMORY", 1 << 28)
    for item in decode_stream(named(*names), workers=2, timeout=2.0):
        reason, detail = REASONS.get(item.id, ("", ""))
        if isinstance(item, Failure):
            assert item.reason == reason and detail in item.detail and "\n" not in item.detail
        else:
            assert not reason
            np.testing.assert_array_equal(item.frames.data, expected)


@pytest.mark.usefixtures("misbehaving")
def test_a_video_whose_worker_was_killed_is_tried_once_alone(named: Named, tmp_path: Path) -> None:
    names = ("a", "killed-once", "b", "kills-itself", "c")
    items = list(decode_stream(named(*names), workers=2))
    assert [item.id for item in items] == list(names)
    assert reasons(iter(items)) == {**dict.fromkeys(names, ""), "kills-itself": "crashed"}
    assert (tmp_path / "killed-once.log").read_text() == "attempt\nattempt\n"


@pytest.mark.usefixtures("misbehaving")
def test_workers_import_no_torch(named: Named) -> None:
    (found,) = decode_stream(named("imports"), workers=1)
    assert isinstance(found, Failure)
    assert {"av", "numpy"} < set(found.detail.split())
    assert not {"torch", "transformers", "sklearn", "scipy", "h5py", "matplotlib", "decord"} & set(found.detail.split())


@pytest.mark.usefixtures("misbehaving")
def test_native_libraries_cannot_write_to_the_terminal(named: Named, capfd: pytest.CaptureFixture[str]) -> None:
    assert reasons(decode_stream(named("shouts", "good"), workers=1)) == {"shouts": "", "good": ""}
    assert capfd.readouterr() == ("", "")


def test_a_folder_of_the_users_cannot_pose_as_a_library(
    named: Named, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "av.py").write_text("raise SystemExit('not the library')")
    monkeypatch.chdir(tmp_path)
    assert reasons(decode_stream(named("good"), workers=1)) == {"good": ""}


@pytest.mark.timing
def test_a_slow_consumer_is_not_taken_for_a_slow_decoder(named: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next video waits for the consumer for longer than the deadline before the worker receives it."""
    monkeypatch.setattr(f"{SUPERVISOR}.GRACE", 0.05)
    monkeypatch.setattr(f"{SUPERVISOR}.AHEAD_PER_WORKER", 0)
    found = {}
    for item in decode_stream(named("a", "b", "c"), workers=1, timeout=1.0):
        found[item.id] = item.reason if isinstance(item, Failure) else ""
        time.sleep(1.3)
    assert found == {"a": "", "b": "", "c": ""}


@pytest.mark.timing
@pytest.mark.usefixtures("misbehaving")
def test_a_deadline_runs_from_when_a_video_was_handed_over(named: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that has long answered gets its next video just before the answer is read."""
    monkeypatch.setattr(f"{SUPERVISOR}.GRACE", 0.05)
    monkeypatch.setattr(f"{SUPERVISOR}.AHEAD_PER_WORKER", 1)
    stream = decode_stream(named("a", "b", "slow", "c"), workers=1, timeout=2.5)
    assert next(stream).id == "a"
    time.sleep(4)
    assert reasons(stream) == {"b": "", "slow": "", "c": ""}


def test_what_the_consumer_holds_is_not_the_workers_memory(named: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{SUPERVISOR}.MAX_MEMORY", 64 << 20)
    held = list(decode_stream(named("a") * 150, workers=1))
    assert all(isinstance(item, Decoded) for item in held), held[-1]
    assert len(held) * (1 << 20) > 64 << 20  # a megabyte of shared memory each, at least
    large = DecodeRequest("a", held[0].path if isinstance(held[0], Failure) else named("a")[0].path, SPECS)
    monkeypatch.setattr(f"{SUPERVISOR}.MAX_MEMORY", 100 << 10)
    (found,) = decode_stream([large], workers=1)  # but each piece must fit into it
    assert isinstance(found, Failure) and found.reason == "memory"


@pytest.mark.skipif(sys.platform != "linux", reason="limits are Linux's")
def test_workers_keep_within_a_limit_that_was_set_for_good(named: Named) -> None:
    """A hard limit, as batch systems set it, cannot be raised again."""
    script = (
        "import resource, sys; from pathlib import Path\n"
        "resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))\n"
        "from actionvit.features.sampling import ClipSpec\n"
        "from actionvit.features.decoding.pool.messages import Decoded, DecodeRequest\n"
        "from actionvit.features.decoding.pool.supervisor import decode_stream\n"
        "request = DecodeRequest('a', Path(sys.argv[1]), (ClipSpec(num_frames=8, size=32),))\n"
        "assert all(isinstance(one, Decoded) for one in decode_stream([request] * 9, workers=1))\n"
    )
    (request,) = named("a")
    # Without the right to raise limits, which root may have.
    dropped = ["setpriv", "--bounding-set", "-sys_resource"] if os.geteuid() == 0 and shutil.which("setpriv") else []
    subprocess.run([*dropped, sys.executable, "-c", script, str(request.path)], check=True)


@pytest.mark.timing
@pytest.mark.usefixtures("misbehaving")
def test_a_hang_is_noticed_in_time_after_the_consumer_was_away(named: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{SUPERVISOR}.GRACE", 0.2)
    monkeypatch.setattr(f"{SUPERVISOR}.AHEAD_PER_WORKER", 0)
    stream = decode_stream(named("a", "hangs"), workers=1, timeout=1.5)
    assert next(stream).id == "a"
    time.sleep(6)
    began = time.monotonic()
    assert reasons(stream) == {"hangs": "timeout"}
    assert time.monotonic() - began < 4


@pytest.mark.timing
@pytest.mark.usefixtures("misbehaving")
def test_time_suspended_while_embedding_is_no_timeout(named: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a long pause of the consumer with stopped workers, the workers still have their full time."""
    monkeypatch.setattr(f"{SUPERVISOR}.GRACE", 0.2)
    monkeypatch.setattr(f"{SUPERVISOR}.AHEAD_PER_WORKER", 2)
    stream = decode_stream(named("a", "slow", "c"), workers=1, timeout=4.0)
    assert next(stream).id == "a"
    (child, *_) = offspring(os.getpid())
    os.kill(int(child), signal.SIGSTOP)
    time.sleep(4.5)
    os.kill(int(child), signal.SIGCONT)
    assert reasons(stream) == {"slow": "", "c": ""}


def test_workers_are_replaced_after_so_many_videos(named: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(1) or real(*a, **k))
    names = [str(number) for number in range(7)]
    monkeypatch.setattr(f"{SUPERVISOR}.RECYCLE", 3)
    assert reasons(decode_stream(named(*names), workers=1)) == dict.fromkeys(names, "")
    assert len(started) == 3


def test_frames_stay_valid_while_they_are_referenced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared memory is reused only after the consumer has dropped every array over it, including views."""
    paths = [Film(name=f"{n}.avi", frames=9 + n, size=(64 + 16 * (n % 3), 48)).write(tmp_path) for n in range(8)]
    requests = [DecodeRequest(f"{turn}-{path.name}", path, SPECS) for turn in range(4) for path in paths]
    monkeypatch.setattr(f"{SUPERVISOR}.RECYCLE", 5)
    kept = {}
    for number, item in enumerate(decode_stream(requests, workers=2)):
        assert isinstance(item, Decoded)
        if number % 3 == 0:
            kept[item.id] = item.frames.data[2:5]
    for name, data in kept.items():
        np.testing.assert_array_equal(data, decode(tmp_path / name.partition("-")[2], SPECS).data[2:5])


def test_large_videos_are_not_decoded_far_ahead(named: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{SUPERVISOR}.MAX_AHEAD", 3 * 8 * 64 * 96 * 3)
    monkeypatch.setattr(f"{SUPERVISOR}.AHEAD_PER_WORKER", 12)
    taken = []

    def requests() -> Iterator[DecodeRequest]:
        for number, request in enumerate(named(*map(str, range(20)))):
            taken.append(number)
            yield request

    for number, _ in enumerate(decode_stream(requests(), workers=1)):
        assert number == 0 or len(taken) <= number + 5


def test_a_worker_that_cannot_start_ends_the_run(named: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    misbehaving_decoders.install(monkeypatch, "no_such_decoder")
    with pytest.raises(ActionVitError, match=r"does not start.*no_such_decoder"):
        list(decode_stream(named("a"), workers=1))


def test_a_file_that_changes_while_it_is_read_fails(named: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    (request,) = named("a")
    count = iter(range(100))
    monkeypatch.setattr("actionvit.features.decoding.pool.task.fingerprint", lambda path: next(count))
    (found,) = decode_stream([request], workers=0)
    assert isinstance(found, Failure) and (found.reason, found.detail) == (
        "corrupt",
        "the file changes while it is read",
    )


@pytest.mark.timing
@pytest.mark.usefixtures("misbehaving")
def test_closing_early_ends_the_workers_at_once(named: Named) -> None:
    stream = decode_stream(named("good", "hangs", "sleeps"), workers=3)
    assert next(stream).id == "good"
    children = offspring(os.getpid())
    assert len(children) >= 2
    began = time.monotonic()
    stream.close()
    assert time.monotonic() - began < 5 and not [child for child in children if runs(child)]


PARENT = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have background jobs ignore it
from actionvit.features.sampling import ClipSpec
from actionvit.features.decoding import DecodeRequest, decode_stream
spec = ClipSpec(num_frames=2, size=8)
requests = [DecodeRequest(Path(name).stem, Path(name), (spec,)) for name in sys.argv[2:]]
sys.path.insert(0, sys.argv[1])
# some workers are still starting when the parent dies
import misbehaving_decoders
from actionvit.features import child_process
child_process.START = misbehaving_decoders.start_script()
stream = decode_stream(requests * 9, workers=6)
next(stream)
print("decoding", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_die_with_their_parent(named: Named, end: signal.Signals) -> None:
    """Workers that decode, that hang in native code, and that are still starting."""
    files = [str(request.path) for request in named("good", "hangs", "sleeps")]
    command = [sys.executable, "-c", PARENT, str(Path(__file__).parent / "support"), *files]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    assert parent.stdout is not None and parent.stdout.readline() == b"decoding\n"
    children = offspring(parent.pid)
    try:
        assert len(children) >= 2
        parent.send_signal(end)
        parent.wait(30)
    finally:
        parent.kill()
        parent.stdout.close()
    wait_for_end(children)


@pytest.mark.timing
@pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc")
def test_stopping_and_continuing_fails_nothing(named: Named) -> None:
    """Ctrl-Z stops a run and its workers; time spent stopped does not count towards timeouts."""
    script = PARENT.replace("requests * 9, workers=6", "requests * 3, workers=2, timeout=3.0").replace(
        'print("decoding", flush=True)\ntime.sleep(60)',
        'print("decoding", flush=True)\nprint(*(getattr(item, "reason", "fine") for item in stream))',
    )
    files = [str(request.path) for request in named("good", "slow")]
    command = [sys.executable, "-c", script, str(Path(__file__).parent / "support"), *files]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    assert parent.stdout is not None and parent.stdout.readline() == b"decoding\n"
    os.killpg(parent.pid, signal.SIGSTOP)
    time.sleep(3.5)
    os.killpg(parent.pid, signal.SIGCONT)
    assert parent.communicate(timeout=60)[0].split() == [b"fine"] * 5


@pytest.fixture
def root(video: Path, tmp_path: Path) -> Path:
    """A dataset in which a third of the videos misbehave."""
    for label in ("hop", "run"):
        (tmp_path / "clips" / label).mkdir(parents=True)
    for number, name in enumerate([*REASONS, *(f"good{n}" for n in range(8))]):
        path = tmp_path / "clips" / ("hop", "run")[number % 2] / f"{name}.avi"
        path.write_bytes(video.read_bytes() + bytes([number]))  # of equal files one row serves all
    return tmp_path / "clips"


def extract(root: Path, *more: str) -> Result:
    cache = root.parent / "cache"
    arguments = ["extract", root, "--variant", "tiny", "--cache", cache, "--workers", "2", "--timeout", "2", "--json"]
    return CliRunner().invoke(cli, [*map(str, arguments), *more])


def ledger(folder: Path) -> dict[str, dict[str, str]]:
    (path,) = folder.rglob("failures.csv")
    with path.open(newline="", encoding="utf-8") as file:
        return {row["id"].rpartition("/")[2].removesuffix(".avi"): row for row in csv.DictReader(file)}


@pytest.mark.timing
def test_misbehaving_decoders_give_the_right_failure_log(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = []
    misbehaving_decoders.install(monkeypatch)
    monkeypatch.setattr(f"{SUPERVISOR}.MAX_MEMORY", 1 << 28)

    def stream(requests: Iterator[DecodeRequest], **settings: object) -> Iterator[Decoded | Failure]:
        kept = list(requests)
        if kept:
            batches.append({request.path.stem for request in kept})
        return decode_stream(kept, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(stage, "decode_stream", stream)
    done = extract(root)
    assert done.exit_code == 3, done.output
    (outcome,) = json.loads(done.stdout)["outcomes"]
    assert (outcome["rows"], outcome["failed"]) == (8, len(REASONS))
    lines = ledger(root.parent)
    assert lines.keys() == REASONS.keys()
    for name, (reason, detail) in REASONS.items():
        line = lines[name]
        assert line["reason"] == reason and detail in line["detail"]
        assert line["frames"] == "0" and line["decoder"].startswith("av ") and int(line["size"]) > 0

    # Videos whose worker was killed, perhaps for memory, are tried once more, alone.
    assert len(batches) == 2 and batches[1] == {"eats-memory", "kills-itself"}
    # The same files and the same decoder: nothing is tried again, and the exit code is still 3.
    assert extract(root).exit_code == 3 and len(batches) == 2
    # A changed file, a changed decoder, or the user's option: tried again.
    (changed,) = root.rglob("segfaults.avi")
    os.utime(changed, (1, 1))
    assert extract(root).exit_code == 3 and batches[2] == {"segfaults"}
    monkeypatch.setattr(stage, "decoder_version", lambda: "av 99")
    assert extract(root).exit_code == 3 and batches[3] == set(REASONS)
    monkeypatch.setattr("actionvit.features.child_process.START", misbehaving_decoders.START)
    assert extract(root, "--retry-failed").exit_code == 0 and ledger(root.parent) == {}


def test_on_corrupt_keeps_or_skips_damaged_videos(root: Path) -> None:
    for label in ("hop", "run"):
        for path in sorted((root / label).glob("*.avi"))[2:]:
            path.unlink()
    damaged = next(root.rglob("*.avi"))
    data = damaged.read_bytes()
    damaged.write_bytes(data[: -len(data) // 8])
    kept = extract(root)
    assert kept.exit_code == 0 and json.loads(kept.stdout)["outcomes"][0]["flagged"] == 1
    skipped = extract(root, "--on-corrupt", "skip")  # another policy, another store
    (outcome,) = json.loads(skipped.stdout)["outcomes"]
    assert skipped.exit_code == 3 and (outcome["rows"], outcome["failed"]) == (3, 1)
    (line,) = ledger(Path(outcome["store"])).values()
    assert line["reason"] == "truncated" and int(line["frames"]) > 8 and line["backend"] == "pyav"


@pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc")
def test_ctrl_c_leaves_no_process_and_no_shared_memory(root: Path, tmp_path: Path) -> None:
    before = shared_memory()
    code = (
        "import sys, signal; sys.path.insert(0, sys.argv.pop(1))\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import misbehaving_decoders\n"
        "from actionvit.features import child_process\n"
        "child_process.START = misbehaving_decoders.start_script()\n"
        "from actionvit.cli import main; main()"
    )
    options = ["extract", root, "--variant", "tiny", "--cache", tmp_path / "cache", "--workers", "3"]
    command = [sys.executable, "-c", code, Path(__file__).parent / "support", *options]
    run = subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while len(children := offspring(run.pid)) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to the workers as well
    try:
        _, message = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 1 and b"Traceback" not in message, message
    wait_for_end(children)
    assert shared_memory() == before


def shared_memory() -> set[str]:
    return {path.name for folder in ("/dev/shm", "/tmp") for path in Path(folder).glob("*actionvit*")}


def offspring(pid: int) -> list[str]:
    """Return the ids of a process's children."""
    return [child for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]


def wait_for_end(children: list[str]) -> None:
    deadline = time.monotonic() + 30
    while any(map(runs, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [child for child in children if runs(child)]


def runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
