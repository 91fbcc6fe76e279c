"""`actionvit data`: what a user types and reads."""

from __future__ import annotations

import json
import zipfile

from click.testing import CliRunner

from actionvit.cli import cli


def run(*arguments: object):
    return CliRunner().invoke(cli, ["data", *map(str, arguments)])


def test_fetch_names_licence_and_paper_and_what_is_missing(tmp_path):
    with zipfile.ZipFile(tmp_path / "mirror.zip", "w") as opened:
        for number in range(3):
            opened.writestr(f"HMDB51/clap/S{number}_clap_u_nm_np1_fr_goo_0.avi", b"")
    to = tmp_path / "data" / "hmdb51"
    done = run("fetch", "hmdb51", "--to", to, "--from", tmp_path / "mirror.zip")
    assert done.exit_code == 0, done.output
    assert "Licence: CC BY 4.0" in done.stdout and "Kuehne" in done.stdout and "ICCV 2011" in done.stdout
    assert f"3 videos of 1 class in `{to}`" in done.stdout and f"actionvit extract {to}" in done.stdout
    assert "the whole of it has 6,766 videos" in done.stderr
    again = run("fetch", "hmdb51", "--to", to)
    assert again.exit_code == 0 and "there already" in again.stdout


def test_draw_then_splits(tmp_path):
    drawn = run("draw", tmp_path / "clips", "--clips", 60)
    assert drawn.exit_code == 0 and "clips drawn, 0 kept" in drawn.stdout
    found = json.loads(run("splits", tmp_path / "clips", "--json").stdout)
    rows = {row["split"]: row for row in found["splits"]}
    assert found["sources_known"] and len(rows) == 3 + 5 + 5 + 5
    assert rows["official-1"]["train"] > rows["official-1"]["test"] > 0
    assert all(row["leaking"] == 0 for name, row in rows.items() if name.startswith(("official", "grouped")))
    assert all(row["leaking"] > 0 for name, row in rows.items() if name.startswith("stratified"))
    table = run("splits", tmp_path / "clips", "--protocol", "grouped", "--folds", 3).stdout
    assert [line.split()[0] for line in table.splitlines()[2:5]] == ["grouped-1", "grouped-2", "grouped-3"]


def test_splits_without_lists_are_the_others(tmp_path):
    for number in range(12):
        file = tmp_path / "set" / "ab"[number % 2] / f"{number}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    done = run("splits", tmp_path / "set")
    assert done.exit_code == 0 and "official" not in done.stdout and "random-5" in done.stdout
    assert "note: file names tell no sources" in done.stderr
