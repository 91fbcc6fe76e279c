"""Tests of the tests: with a writer that is wrong on purpose, every one of these fails."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from fake_store import environment

CRASH = (
    "test_killed_at_any_boundary_it_resumes_to_the_same_store",
    "test_repeated_kills_end_at_the_same_store",
    "test_what_a_kill_can_cost",
    "test_what_was_appended_before_an_exception",
    "test_failing_disk_is_one_line",
    "test_a_real_disk_that_is",
    "test_vanished_folder",
    "test_after_a_power_cut",
    "test_what_a_killed_writer_left_is_swept",
)
VERIFY = ("test_flipped_bit", "test_what_is_damaged_is_an_error", "test_a_lost_row", "test_big_parts")
SHARING = (
    "test_second_writer",
    "test_extract_fails",
    "test_concurrent_extractions",
    "test_two_",
    "test_shards_of_real",
    "test_any_number",
)
OTHERS = (
    "test_slow_writing",
    "test_a_row_is_what",
    "test_rows_read_back",
    "test_a_renamed",
    "test_only_a_changed_video",
)


def results(broken: str, *names: str) -> tuple[set[str], set[str]]:
    """Run some tests with a broken writer; return which passed and which did not."""
    paths = sorted(path for path in Path(__file__).parent.glob("test_store*.py") if path.name != Path(__file__).name)
    files = [path for path in paths if any(f"def {name}" in path.read_text(encoding="utf-8") for name in names)]
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-rpfE", "-p", "no:cacheprovider"]
    command += ["-k", " or ".join(names), *map(str, files)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=environment(STORE_BROKEN=broken),
        cwd=files[0].parents[1],
    )
    found = re.findall(r"^(PASSED|FAILED|ERROR) \S+?::(\S+)", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    return {name for how, name in found if how == "PASSED"}, {name for how, name in found if how != "PASSED"}


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(VERIFY, id="verify"),
        pytest.param(CRASH, id="crash", marks=pytest.mark.slow),
        pytest.param(SHARING, id="sharing", marks=pytest.mark.slow),
        pytest.param(OTHERS, id="others", marks=pytest.mark.slow),
    ],
)
def test_wrong_numbers_fail_every_one_of_them(names: tuple[str, ...]) -> None:
    passed, failed = results("numbers", *names)
    assert not passed
    for name in names:
        assert any(each.startswith(name) for each in failed), f"{name}: was not run"


@pytest.mark.parametrize("broken", ["digest", "bytes"])
def test_changed_rows_and_bytes_fail_their_digests(broken: str) -> None:
    passed, failed = results(broken, CRASH[0], CRASH[4], CRASH[7], VERIFY[0], *SHARING[:1])
    assert not passed and len(failed) > 10
