"""Benchmarks run from any folder, on tiny shapes, where their figures have no meaning."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def bench(name: str, tmp_path: Path, *arguments: object) -> dict:
    out = tmp_path / "result.json"
    command = [sys.executable, BENCHMARKS / name, *arguments, "--out", out]
    done = subprocess.run([*map(str, command)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text(encoding="utf-8"))


def test_the_gpu_benchmark_fills_its_table(tmp_path: Path) -> None:
    arguments = ("--small", "--clips", 8, "--plain-clips", 2, "--batch", 2, "--seconds", 0.01, "--workers", 1)
    result = bench("bench_gpu.py", tmp_path, *arguments, "--no-compile", "--profile")
    ways = {(row["variant"], row["way"]) for row in result["forward"]}
    expected = ("transformers fp32", "transformers bf16 autocast", "ours bf16")
    assert ways == {(variant, way) for variant in ("base", "hr") for way in expected}
    for row in result["forward"]:
        assert row["views_per_s"] > 0
        assert row["share_of_peak"] == pytest.approx(row["tflop_per_s"] / result["peak_tflop_per_s"], rel=0.02)
    ours = [row for row in result["end_to_end"] if row["way"] == "ours"]
    assert [(row["variant"], row["clips"]) for row in ours] == [("base", 8), ("hr", 8), ("base + hr", 8)]
    assert all(row["hmdb51_projected_s"] > 0 for row in ours)
    assert all(len(row["times_the_other_ways"]) == 2 for row in ours[:2])
    assert result["peak_tflop_per_s"] > 0 and result["machine"]["cpu"]
    assert {path.name for path in tmp_path.glob("*.txt")} == {"result-base.txt", "result-hr.txt"}


@pytest.mark.slow
def test_all_gpu_benchmarks_run_by_one_command(tmp_path: Path) -> None:
    """On the CPU, with tiny shapes; nothing is lacking here, so an empty folder of wheels does."""
    environment = {**os.environ, "SMALL": "1", "OUT": str(tmp_path), "PYTHON": sys.executable}
    command = [BENCHMARKS / "gpu.sh", tmp_path]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    result = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    names = {"extraction", "finetune", "probe", "tests"}
    assert set(result["parts"]) == names and done.returncode == 0, done.stderr
    assert all(part["exit_code"] == 0 for part in result["parts"].values()), done.stderr
    assert {row["train"] for row in result["finetune"]["rows"]} == {"last:1", "all"}
    assert all(row["transformers"]["clips_per_s"] > 0 for row in result["finetune"]["rows"])
    assert result["tests"]["tests"] > 0 and not result["tests"]["failures"]
    for line in ("forward    hr", "extraction base + hr", "fine-tune  all", "probe grid like clip", "pytest -m gpu"):
        assert line in done.stdout


def test_the_gpu_table_keeps_the_parts_of_a_run_cut_off(tmp_path: Path) -> None:
    row = {"variant": "base", "way": "ours bf16", "views_per_s": 1352.0, "share_of_peak": 0.61}
    extraction = {"machine": {"gpu": "NVIDIA H200"}, "peak_tflop_per_s": 764.0, "forward": [row], "end_to_end": []}
    (tmp_path / "extraction.json").write_text(json.dumps(extraction), encoding="utf-8")
    (tmp_path / "times").write_text("extraction 124 210\n", encoding="utf-8")
    command = [sys.executable, BENCHMARKS / "gpu_table.py", tmp_path, "--out", tmp_path / "gpu.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "1352.0 views/s" in done.stdout and "not run" in done.stdout
    result = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert result["forward"] == [row] and result["parts"] == {"extraction": {"exit_code": 124, "seconds": 210}}


def test_the_gpu_command_names_the_packages_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "av.py").touch()  # found; the interpreter below has nothing but the standard library
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "OUT": str(tmp_path)}
    environment["PYTHON"] = str(write_isolated_python(tmp_path / "python"))
    done = subprocess.run([BENCHMARKS / "gpu.sh"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "pip download" in done.stderr
    assert "h5py" in done.stderr and " av " not in done.stderr


def write_isolated_python(path: Path) -> Path:
    """Write a script that runs this interpreter without its installed packages."""
    path.write_text(f'#!/bin/sh\nexec "{sys.base_prefix}/bin/python3" -S "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return path


def test_the_probe_benchmark_fills_its_table(tmp_path: Path) -> None:
    arguments = ("--clips", 60, "--test", 20, "--width", 12, "--classes", 4, "--peer-parts", 1)
    result = bench("bench_probe.py", tmp_path, *arguments, "--jobs", 1)
    for name in ("like clip", "easy"):
        rows = result[name]
        assert min(rows["seconds"]) > 0 and len(rows["chosen_C"]) == 12
        assert rows["loss_above_best"] < 2e-4
        assert rows["LogisticRegressionCV"][-1]["test_predictions_agree"] > 0.9


def test_the_encoders_benchmark_fills_its_table(tmp_path: Path) -> None:
    rows = bench("bench_encoders.py", tmp_path, "--small", "--depth", 1, "--repeats", 1)["rows"]
    assert {row["family"] for row in rows} == {"clip", "videomae"}
    assert all(row["max_difference"] <= 1e-4 and row["times_faster"] > 0 and row["gmac"] > 0 for row in rows)


def test_the_scale_benchmark_measures_and_simulates(tmp_path: Path) -> None:
    arguments = ("--rows", 300, "--videos", 100_000, "--workers", 1, "--workers", 64, "--node-hours", 0.01)
    result = bench("simulate_scale.py", tmp_path, *arguments)
    (measured,) = result["measured"]
    assert measured["rows"] == 300 and set(measured["phases"]) == {"assign", "merge", "plan"}
    assert all(phase["us_per_row"] > 0 for phase in measured["phases"].values())
    one, many = result["simulated"]
    assert one["hours"] > many["hours"] > many["merge_hours"] > 0 and one["efficiency"] > many["efficiency"] > 0
    assert one["node_losses"] > 0 and one["rows_copied"] > 0 and one["metadata_calls"] > 300_000


@pytest.mark.slow
def test_the_report_benchmark_measures_a_command(tmp_path: Path) -> None:
    result = bench("bench_report.py", tmp_path, "--classes", 4, "--clips", 40, "--runs", 2, "--repeats", 1)
    assert result["seconds"]["median"] > 0 and result["cpu_seconds"]["median"] > 0 and result["html_MB"] < 8


@pytest.mark.slow
def test_the_growth_benchmark_fits_powers(tmp_path: Path) -> None:
    result = bench("bench_growth.py", tmp_path, "--small")
    assert len(result["stages"]) == 13
    assert set(result["stages"]["extract"]) == {"videos", "views"}
    assert set(result["stages"]["linear grid"]) == {"videos", "classes", "width"}
    for curves in result["stages"].values():
        for name, curve in curves.items():
            assert [row[name] for row in curve["rows"]] == {
                "videos": [60, 120],
                "classes": [3, 6],
                "width": [8, 16],
                "views": [1, 3],
            }[name]
            assert all(row["seconds"] >= 0 for row in curve["rows"])


def test_growth_power_is_the_slope_of_the_logarithms(monkeypatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from bench_growth import power

    sizes = [10, 100, 1000, 10_000]
    assert power(sizes, [5.0, 6.0, 1e3, 1e5]) == pytest.approx(2.0, abs=0.15)
    assert power(sizes[:1], [1.0]) is None


@pytest.mark.slow
def test_the_forward_benchmark_fills_its_table(tmp_path: Path) -> None:
    result = bench("bench_forward.py", tmp_path, "--depth", 1, "--repeats", 1, "--probe", 0.01)
    fp32, bf16 = result["rows"]
    assert fp32["max_difference"] <= 1e-4 and bf16["cosine"] >= 0.9995
    assert fp32["times_faster"] > 0 and fp32["share_of_peak"] > 0


@pytest.mark.slow
def test_the_fine_tuning_benchmark_fills_its_table(tmp_path: Path) -> None:
    arguments = ("--clips", 2, "--batch", 2, "--epochs", 2, "--depth", 2, "--train", "last:1")
    (row,) = bench("bench_finetune.py", tmp_path, *arguments)["rows"]
    through, cached = (row["ways"][way]["loss"] for way in ("through the frozen blocks", "from tokens"))
    assert cached == pytest.approx(through, rel=1e-3) and row["times_less_cpu"] > 0


@pytest.mark.slow
def test_the_extraction_benchmark_fills_its_table(tmp_path: Path, real_data: Path) -> None:
    arguments = (real_data / "jhmdb21", "--clips", 2, "--rounds", 1, "--depth", 1, "--workers", 1)
    result = bench("bench_extract.py", tmp_path, *arguments)
    assert set(result["clips_per_s"]) == {"plain", "ours", "decode_only", "forward_only"}
    assert result["times_plain"] > 0 and result["share_of_the_slower_half"] > 0
