"""`actionvit doctor` and the probe of the machine's products behind it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from actionvit.cli import cli
from actionvit.features.timesformer.matmul_peak import matmul_rates
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
    rates = told["videos_per_second"]
    assert rates["tiny"] > rates["tiny-hr"] > rates["base"] > rates["hr"] > rates["large"] > 0
    assert told["gmac_per_second"] > 1
    monkeypatch.setattr(
        "actionvit.commands.doctor._speed", lambda place, precision: {"peak": told["gmac_per_second"], **rates}
    )
    said = CliRunner().invoke(cli, ["doctor", "--device", "cpu"])
    assert said.exit_code == 0 and "videos a second" in said.stdout


def test_a_product_is_measured_as_its_multiply_adds_by_its_time() -> None:
    small, large = (256, 64, 64), (1024, 512, 512)
    rates = matmul_rates("cpu", "fp32", shapes=(small, large), seconds=0.05)
    assert set(rates) == {small, large}
    # No core does a thousand; a loaded one may do hardly any.
    assert all(0 < rate < 1000 * torch.get_num_threads() for rate in rates.values())
