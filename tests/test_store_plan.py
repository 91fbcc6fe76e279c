"""Planning: videos left to embed, checks of existing rows, and the failure log."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from fake_store import check_rows, embed, failed, make

from actionvit.features.failures import Failure
from actionvit.features.fingerprint import Fingerprint, content_digest, fingerprint
from actionvit.features.store.failures import parse, render
from actionvit.features.store.parts import list_parts
from actionvit.features.store.plan import make_plan
from actionvit.features.store.store import FeatureStore
from actionvit.features.store.verify import verify_store
from actionvit.features.store.writer import Writer


@pytest.fixture
def videos(tmp_path: Path) -> list[tuple[str, Path]]:
    """Four files, `a` to `d`."""
    (tmp_path / "data").mkdir()
    found = [(name, tmp_path / "data" / name) for name in "abcd"]
    for name, path in found:
        path.write_bytes(name.encode() * 10)
    return found


def embed_all(store: FeatureStore, videos: list[tuple[str, Path]]) -> None:
    with Writer(store) as out:
        for id, path in videos:
            out.append(embed(id, path))


def test_a_plan_puts_each_video_in_one_place(tmp_path: Path, videos: list[tuple[str, Path]]) -> None:
    store = make(tmp_path / "store")
    assert make_plan(store, videos).missing == ("a", "b", "c", "d")
    embed_all(store, videos[:3])
    (tmp_path / "data" / "b").write_bytes(b"B" * 20)
    plan = make_plan(store, videos[1:])
    assert (plan.cached, plan.changed, plan.missing, plan.unlisted) == (("c",), ("b",), ("d",), ("a",))
    assert plan.pending == ["b", "d"] and plan.needs_apply


def test_a_touched_file_is_read_once_and_then_vouched_for(tmp_path: Path, videos: list[tuple[str, Path]]) -> None:
    store = make(tmp_path / "store")
    embed_all(store, videos)
    for _, path in videos:
        os.utime(path, ns=(1, 1))
    plan = make_plan(store, videos)
    assert len(plan.cached) == len(plan.fingerprints) == 4
    digest = store.digest()
    with Writer(store) as out:
        assert out.apply(plan) == []
    assert not make_plan(store, videos).needs_apply and store.digest() == digest
    assert len(list_parts(tmp_path / "store")) == 1, "no row was written again"


def test_a_renamed_file_is_adopted(tmp_path: Path, videos: list[tuple[str, Path]]) -> None:
    store = make(tmp_path / "store")
    embed_all(store, videos)
    videos[2][1].rename(tmp_path / "data" / "z")
    moved = [*videos[:2], ("z", tmp_path / "data" / "z"), videos[3]]
    plan = make_plan(store, moved)
    assert dict(plan.reusable) == {"z": (store, "c")} and plan.unlisted == ("c",) and plan.pending == []
    with Writer(store) as out:
        assert out.apply(plan) == []
    assert make_plan(store, moved).cached == ("a", "b", "z", "d")
    check_rows(store)
    assert store.records(["z"])[0].digest == store.records(["c"])[0].digest


def test_a_file_that_took_the_name_of_a_renamed_one_is_embedded(tmp_path: Path, videos: list[tuple[str, Path]]) -> None:
    store = make(tmp_path / "store")
    embed_all(store, videos)
    (tmp_path / "data" / "c").rename(tmp_path / "data" / "z")
    (tmp_path / "data" / "c").write_bytes(b"another")
    now = [*videos, ("z", tmp_path / "data" / "z")]
    plan = make_plan(store, now)
    assert (plan.changed, dict(plan.reusable)) == (("c",), {"z": (store, "c")})
    with Writer(store) as out:
        out.apply(plan)
        out.append(embed("c", tmp_path / "data" / "c"))
    assert make_plan(store, now).cached == ("a", "b", "c", "d", "z")
    check_rows(store)


def test_rows_of_other_stores_of_the_key_are_copied(tmp_path: Path, videos: list[tuple[str, Path]]) -> None:
    donor, store = make(tmp_path / "donor"), make(tmp_path / "store")
    embed_all(donor, [("old/" + id, path) for id, path in videos[:3]])
    embed_all(store, videos[3:])
    plan = make_plan(store, videos, other_stores=[donor])
    assert (plan.cached, plan.pending) == (("d",), [])
    assert dict(plan.reusable) == {id: (donor, "old/" + id) for id in "abc"}
    with Writer(store) as out:
        assert out.apply(plan) == []
    assert make_plan(store, videos).cached == ("a", "b", "c", "d") and donor.ids == ["old/a", "old/b", "old/c"]
    check_rows(store)
    with pytest.raises(AssertionError):
        make_plan(store, videos, other_stores=[make(tmp_path / "other", precision="bf16")])


def test_rows_that_cannot_be_copied_are_left_to_embed(tmp_path: Path, videos: list[tuple[str, Path]]) -> None:
    damaged, donor, store = (make(tmp_path / name) for name in ("damaged", "donor", "store"))
    embed_all(damaged, videos)
    part = list_parts(damaged.folder)[0]
    part.write_bytes(part.read_bytes()[:-3000])
    embed_all(donor, [("old/" + id, path) for id, path in videos])
    damaged.invalidate()
    plan = make_plan(store, videos, other_stores=[damaged, donor])
    assert dict(plan.reusable) == {id: (donor, "old/" + id) for id in "abcd"}, "a damaged store is ignored"
    with Writer(make(donor.folder)) as out:
        out.add_failure(failed("old/b", "corrupt", "meanwhile"))
    with Writer(store) as out:
        lost = out.apply(plan)
    assert "b" in lost and sorted([*store.ids, *lost]) == ["a", "b", "c", "d"]
    check_rows(store)


def test_other_stores_are_opened_only_where_something_is_missing(
    tmp_path: Path, videos: list[tuple[str, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    donor, store = make(tmp_path / "donor"), make(tmp_path / "store")
    embed_all(store, videos)
    monkeypatch.setattr(FeatureStore, "refresh", lambda self: pytest.fail("the donor store was read"))
    monkeypatch.setattr(donor, "invalidate", lambda: None)
    assert store.index and len(make_plan(store, videos, other_stores=[donor]).cached) == 4
    assert donor._index is None


def test_a_change_that_size_and_time_hide_is_seen_when_asked(tmp_path: Path, videos: list[tuple[str, Path]]) -> None:
    store = make(tmp_path / "store")
    embed_all(store, videos)
    path = videos[0][1]
    before = fingerprint(path)
    path.write_bytes(b"X" * before.size)
    os.utime(path, ns=(before.mtime_ns, before.mtime_ns))
    assert len(make_plan(store, videos).cached) == 4
    assert make_plan(store, videos, verify=True).changed == ("a",)


def test_frames_in_the_place_of_others_are_seen(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(b"%d" % number)
        os.utime(folder / f"{number}.jpg", ns=(number, number))
    before, content = fingerprint(folder), content_digest(folder)
    assert before.size == 3 and 0 <= before.mtime_ns < 1 << 63
    shutil.copy2(folder / "1.jpg", folder / "0.jpg")  # no size, not even their sum, and not the latest time changes
    assert content_digest(folder) != content and fingerprint(folder) != before
    old = fingerprint(folder)
    (folder / "2.jpg").rename(folder / "02.jpg")
    assert fingerprint(folder) != old


def test_rows_outlive_files_that_are_away(tmp_path: Path, videos: list[tuple[str, Path]]) -> None:
    store = make(tmp_path / "store")
    embed_all(store, videos[:2])
    for _, path in videos:
        path.unlink()
    plan = make_plan(store, videos)
    assert (plan.cached, plan.missing) == (("a", "b"), ("c", "d"))


def test_failures_are_tried_again_when_file_or_decoder_changed(tmp_path: Path, videos: list[tuple[str, Path]]) -> None:
    store = make(tmp_path / "store")
    with Writer(store) as out:
        for id, path in videos:
            out.add_failure(failed(id, "corrupt", "bad header", "pyav", 3, fingerprint(path), "1"))
    assert make_plan(store, videos, decoder_version="1").failed == ("a", "b", "c", "d")
    assert len(make_plan(store, videos, decoder_version="2").missing) == 4
    assert len(make_plan(store, videos, decoder_version="1", retry_failed=True).missing) == 4
    videos[0][1].write_bytes(b"repaired")
    assert make_plan(store, videos, decoder_version="1").missing == ("a",)
    embed_all(store, videos[:1])
    assert [failure.id for failure in store.failures()] == ["b", "c", "d"]
    lines = (tmp_path / "store" / "failures.csv").read_text().splitlines()
    assert lines[0].startswith("id,reason,detail,backend,frames,") and lines[1].startswith(
        "b,corrupt,bad header,pyav,3,"
    )


def test_a_file_that_could_not_be_read_is_tried_once_it_can(tmp_path: Path, videos: list[tuple[str, Path]]) -> None:
    store = make(tmp_path / "store")
    with Writer(store) as out:
        out.add_failure(failed("a", "missing", "Permission denied", fingerprint=fingerprint(videos[0][1]), decoder="1"))
        out.add_failure(failed("away", "missing", "No such file", decoder="1"))
    plan = make_plan(store, [videos[0], ("away", tmp_path / "away")], decoder_version="1")
    assert (plan.missing, plan.failed) == (("a",), ("away",)), "without a new fingerprint it is not tried again"


def test_a_failure_of_a_video_that_is_no_more_is_forgotten(tmp_path: Path, videos: list[tuple[str, Path]]) -> None:
    store = make(tmp_path / "store")
    with Writer(store) as out:
        for id in ("a", "renamed since"):
            out.add_failure(failed(id, "corrupt", "", fingerprint=fingerprint(videos[0][1]), decoder="1"))
    plan = make_plan(store, videos, decoder_version="1")
    assert (plan.failed, plan.obsolete_failures, plan.needs_apply) == (("a",), ("renamed since",), True)
    with Writer(store) as out:
        out.apply(plan)
    assert [failure.id for failure in store.failures()] == ["a"]
    assert not make_plan(store, videos, decoder_version="1").needs_apply


def test_a_video_that_broke_loses_every_row_it_had(tmp_path: Path, videos: list[tuple[str, Path]]) -> None:
    store = make(tmp_path / "store")
    embed_all(store, videos)
    videos[0][1].write_bytes(b"second version")
    embed_all(store, videos[:1])
    videos[0][1].write_bytes(b"broken")
    with Writer(store) as out:
        out.add_failure(failed("a", "corrupt", "", "pyav", 0, fingerprint(videos[0][1]), "1"))
    assert store.ids == ["b", "c", "d"]
    assert make_plan(store, videos, decoder_version="1").failed == ("a",)


def test_the_ledger_survives_spreadsheets_and_shows_edits() -> None:
    line = failed('a,"b"\'', "corrupt", 'x "y", z', "pyav", 1, Fingerprint(2, 3), "v1")
    data = render(Failure, [line])
    assert parse(Failure, data) == ({line.id: line}, [])
    good, bad = parse(Failure, data.replace(b"corrupt", b"corrvpt"))
    assert good == {} and "line 2: not as written" in bad[0]


@pytest.mark.parametrize("id", ["z\n.avi", "z\r.avi", "z\r\n", "\udcff.avi", 'x,"y".avi', " z", "日本"])
def test_a_failure_is_known_again_whatever_its_name(tmp_path: Path, id: str) -> None:
    store = make(tmp_path)
    with Writer(store) as out:
        out.add_failure(failed(id, "corrupt", 'two\nlines,\0 "quoted"', "pyav", 3, decoder="1"))
    assert verify_store(tmp_path) == []
    (failure,) = store.failures()
    assert (failure.id, failure.detail) == (id, 'two lines, "quoted"')
    assert make_plan(store, [(id, tmp_path / "away")], decoder_version="1").failed == (id,)


def test_a_table_that_is_no_csv_any_more_is_one_problem(tmp_path: Path) -> None:
    store = make(tmp_path)
    with Writer(store) as out:
        out.add_failure(failed("a", "corrupt", ""))
    (tmp_path / "failures.csv").write_bytes((tmp_path / "failures.csv").read_bytes() + b'"' + b"x" * 200_000)
    assert [problem.file for problem in verify_store(tmp_path, repair=True)] == ["failures.csv"]
    assert verify_store(tmp_path) == []
