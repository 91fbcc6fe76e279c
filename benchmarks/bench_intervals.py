"""How often a report's comparison recovers a planted truth: coverage of its intervals, errors of its tests.

`python benchmarks/bench_intervals.py` prints a table and writes `results/intervals.json`; the numbers depend on seeds
and on numpy's random streams, not on the machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "support"))

from planted_runs import recovery, true_difference  # noqa: E402

PLANTED, NONE = (0.3, 0.8), (0.5, 0.5)
COLUMNS = {
    "top1": "interval of Δ top-1 holds the truth",
    "mean_class_accuracy": "that of Δ mean class accuracy",
    "each_class": "that of a class's Δ",
    "power": "the difference is called one",
    "error": "one is called where there is none",
    "class_error": "of any class where there is none",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=1500)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--sources", type=int, nargs="+", default=[40, 60, 150])
    parser.add_argument("--out", type=Path, default=HERE / "results" / "intervals.json")
    options = parser.parse_args()
    rows = []
    for sources in options.sources:
        settings = {"tries": options.tries, "sources": sources, "resamples": options.resamples}
        found, none = recovery(PLANTED, **settings), recovery(NONE, **settings)
        rows.append(
            {
                "sources": sources,
                **{name: found[name] for name in ("top1", "mean_class_accuracy", "each_class")},
                "power": found["shown"],
                "error": none["shown"],
                "class_error": none["classes"],
            }
        )
        print(f"{sources} sources: " + ", ".join(f"{title} {rows[-1][name]:.3f}" for name, title in COLUMNS.items()))
    value = {
        "true_difference": round(true_difference(PLANTED), 4),
        "tries": options.tries,
        "resamples": options.resamples,
        "versions": {name: version(name) for name in ("actionvit", "numpy", "scipy")},
        "rows": rows,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
