"""`actionvit doctor` and its measurement of the machine's matmul rate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from actionvit.cli import cli
from actionvit.features.timesformer.matmul_peak import matmul_rates, peak_matmul_range
from actionvit.features.timesformer.variants import VARIANTS


@pytest.mark.timing
def test_doctor_says_versions_decoders_device_weights_and_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))  # an empty hub cache
    report = json.loads(CliRunner().invoke(cli, ["doctor", "--device", "cpu", "--json"]).stdout)
    assert report["packages"]["torch"] == torch.__version__
    assert "FFmpeg" in report["decoders"]["pyav"] and "decord2" in report["decoders"]["decord"]
    assert report["device"].startswith("cpu, fp32")
    assert set(report["weights"]) == set(report["videos_per_second"]) == set(VARIANTS)
    assert report["weights"]["base"].endswith("to be downloaded") and report["weights"]["tiny"] == "built in"
    assert all(0 < low <= high for low, high in report["videos_per_second"].values())
    rates = {name: high for name, (_, high) in report["videos_per_second"].items()}
    assert rates["tiny"] > rates["tiny-hr"] > rates["base"] > rates["hr"] > rates["large"] > 0
    assert report["gmac_per_second"][0] > 1
    measured = {"peak": report["gmac_per_second"], **report["videos_per_second"]}
    monkeypatch.setattr("actionvit.commands.doctor._speed", lambda place, precision: measured)
    output = CliRunner().invoke(cli, ["doctor", "--device", "cpu"])
    assert output.exit_code == 0 and "videos per second" in output.stdout


def test_expected_speed_is_a_range(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {"peak": (80.0, 104.6), "base": (0.376, 0.41), "hr": (0.1301, 0.1303), "tiny": (1234.0, 2345.0)}
    monkeypatch.setattr("actionvit.commands.doctor._speed", lambda place, precision: measured)
    output = CliRunner().invoke(cli, ["doctor", "--device", "cpu"]).stdout
    assert "80 to 105 GMAC/s" in output and "0.38 to 0.41 videos per second" in output
    assert "0.13 videos per second" in output and "1,234 to 2,345 videos per second" in output


def test_every_round_of_products_counts() -> None:
    rounds: list[int] = []
    low, high = peak_matmul_range("cpu", "fp32", rounds=2, seconds=0.001, on_round=rounds.append)
    assert 0 < low <= high and rounds == [1, 2]


def test_a_product_is_measured_as_its_multiply_adds_by_its_time() -> None:
    small, large = (256, 64, 64), (1024, 512, 512)
    rates = matmul_rates("cpu", "fp32", shapes=(small, large), seconds=0.05)
    assert set(rates) == {small, large}
    # No core reaches a thousand; a loaded one may be close to zero.
    assert all(0 < rate < 1000 * torch.get_num_threads() for rate in rates.values())
