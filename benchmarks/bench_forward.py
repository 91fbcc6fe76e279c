"""Our forward pass against transformers' eager one, and against the machine's matmul rate; on the CPU.

    python benchmarks/bench_forward.py                    # base: fp32 and bf16; about three minutes on two cores
    python benchmarks/bench_forward.py --variant hr --repeats 3
    python benchmarks/bench_forward.py --depth 2          # a quick check

All use the same random weights (no zero bias) and the same views in one process. Each repetition times in turn our
forward pass, that of transformers, and the best matmuls of the machine (the shapes of a base view and large squares, by
torch and oneDNN), so that other load affects all of them equally. The fraction of the peak counts only the needed
multiply-adds (`features.timesformer.variants.gmac(..., needed=True)`).
"""

from __future__ import annotations

import argparse
import operator
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import machine
import peers
import torch
from transformers import TimesformerModel

from actionvit.features.timesformer.checkpoint import find_weights
from actionvit.features.timesformer.encoder import DTYPES, Encoder
from actionvit.features.timesformer.matmul_peak import matmul_rates
from actionvit.features.timesformer.variants import VARIANTS, clip_spec, gmac


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compare(folder: Path, variant: str, precision: str, options) -> dict:
    spec, dtype = clip_spec(variant), DTYPES[precision]
    encoder = Encoder(find_weights(variant, folder), spec, device="cpu", precision=precision)
    theirs = TimesformerModel.from_pretrained(folder, dtype=dtype).eval()
    pixels = torch.randn(1, spec.num_frames, 3, spec.size, spec.size).to(dtype)
    with torch.inference_mode():
        expected, result = theirs(pixels).last_hidden_state[:, 0].float(), encoder.forward(pixels).clip.float()
        ours_s, theirs_s, peaks = [], [], []
        for _ in range(options.repeats):
            peaks.append(matmul_rates("cpu", precision, seconds=options.probe))
            theirs_s.append(timed(lambda: theirs(pixels)))
            ours_s.append(timed(lambda: encoder.forward(pixels)))
    shape = encoder.weights.config
    needed = gmac(shape, spec, needed=True)
    best = {rows: max(peak[rows] for peak in peaks) for rows in peaks[0]}
    peak = max(best.values())
    return {
        "variant": variant,
        "precision": precision,
        "ours_s": round(min(ours_s), 4),
        "transformers_s": round(min(theirs_s), 4),
        "ours_median_s": round(statistics.median(ours_s), 4),
        "transformers_median_s": round(statistics.median(theirs_s), 4),
        "times_faster": round(min(theirs_s) / min(ours_s), 3),
        "times_faster_median": round(statistics.median(map(operator.truediv, theirs_s, ours_s)), 3),
        "gmac_plain": round(gmac(shape, spec), 1),
        "gmac_needed": round(needed, 1),
        "gmac_per_s": round(needed / min(ours_s), 1),
        "peak_gmac_per_s": round(peak, 1),
        "share_of_peak": round(needed / min(ours_s) / peak, 3),
        "products_gmac_per_s": {" × ".join(map(str, rows)): round(rate, 1) for rows, rate in best.items()},
        "max_difference": float((expected - result).abs().max()),
        "cosine": float(torch.nn.functional.cosine_similarity(expected, result).min()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", choices=list(VARIANTS), default="base")
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--probe", type=float, default=0.15, help="seconds per matmul shape and repetition")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    spec, rows = clip_spec(options.variant), []
    with tempfile.TemporaryDirectory() as folder:
        peers.write_random_model(
            Path(folder), num_frames=spec.num_frames, image_size=spec.size, num_hidden_layers=options.depth
        )
        for precision in options.precision:
            rows.append(compare(Path(folder), options.variant, precision, options))
            for name, value in rows[-1].items():
                print(f"{name:28} {value}")
            print()
    out = options.out or Path(__file__).parent / "results" / "forward.json"
    machine.write(out, {"machine": machine.describe("transformers"), "depth": options.depth, "rows": rows})


if __name__ == "__main__":
    main()
