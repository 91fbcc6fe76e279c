"""`actionvit doctor` and the probe of the machine's products behind it."""

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
    told = json.loads(CliRunner().invoke(cli, ["doctor", "--device", "cpu", "--json"]).stdout)
    assert told["packages"]["torch"] == torch.__version__
    assert "FFmpeg" in told["decoders"]["pyav"] and "decord2" in told["decoders"]["decord"]
    assert told["device"].startswith("cpu, fp32")
    assert set(told["weights"]) == set(told["videos_per_second"]) == set(VARIANTS)
    assert told["weights"]["base"].endswith("to be downloaded") and told["weights"]["tiny"] == "built in"
    assert all(0 < low <= high for low, high in told["videos_per_second"].values())
    rates = {name: high for name, (_, high) in told["videos_per_second"].items()}
    assert rates["tiny"] > rates["tiny-hr"] > rates["base"] > rates["hr"] > rates["large"] > 0
    assert told["gmac_per_second"][0] > 1
    measured = {"peak": told["gmac_per_second"], **told["videos_per_second"]}
    monkeypatch.setattr("actionvit.commands.doctor._speed", lambda place, precision: measured)
    said = CliRunner().invoke(cli, ["doctor", "--device", "cpu"])
    assert said.exit_code == 0 and "videos per second" in said.stdout


def test_expected_speed_is_a_range(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {"peak": (80.0, 104.6), "base": (0.376, 0.41), "hr": (0.1301, 0.1303), "tiny": (1234.0, 2345.0)}
    monkeypatch.setattr("actionvit.commands.doctor._speed", lambda place, precision: measured)
    said = CliRunner().invoke(cli, ["doctor", "--device", "cpu"]).stdout
    assert "80 to 105 GMAC/s" in said and "0.38 to 0.41 videos per second" in said
    assert "0.13 videos per second" in said and "1,234 to 2,345 videos per second" in said


def test_every_round_of_products_counts() -> None:
    rounds: list[int] = []
    low, high = peak_matmul_range("cpu", "fp32", rounds=2, seconds=0.001, on_round=rounds.append)
    assert 0 < low <= high and rounds == [1, 2]


def test_a_product_is_measured_as_its_multiply_adds_by_its_time() -> None:
    small, large = (256, 64, 64), (1024, 512, 512)
    rates = matmul_rates("cpu", "fp32", shapes=(small, large), seconds=0.05)
    assert set(rates) == {small, large}
    # No core does a thousand; a loaded one may do hardly any.
    assert all(0 < rate < 1000 * torch.get_num_threads() for rate in rates.values())
