"""Collect the parts of `benchmarks/gpu.sh` into one JSON and print them as a table.

    python benchmarks/gpu_table.py PARTS --out gpu.json

PARTS holds extraction.json, finetune.json, probe.json, tests.xml and `times` (name, exit code, seconds per line); any
of them may be missing.
"""

from __future__ import annotations

import argparse
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import machine

COUNTS = ("tests", "failures", "errors", "skipped")


def collect(parts: Path) -> dict:
    """Return the parts that there are: those of `bench_gpu.py` at the top level, the others under their names."""
    extraction, finetune, probe = (read(parts / f"{name}.json") for name in ("extraction", "finetune", "probe"))
    described = next((part["machine"] for part in (extraction, finetune, probe) if part), {})
    result = {"machine": described, **{key: value for key, value in extraction.items() if key != "machine"}}
    for name, part in (("finetune", finetune), ("probe", probe)):
        if part:
            result[name] = {key: value for key, value in part.items() if key != "machine"}
    if (parts / "tests.xml").is_file():
        suite = ET.parse(parts / "tests.xml").getroot().find("testsuite")
        result["tests"] = {name: int(suite.get(name, 0)) for name in COUNTS} if suite is not None else {}
    lines = (parts / "times").read_text(encoding="utf-8").split("\n") if (parts / "times").is_file() else []
    ended = [line.split() for line in lines if line]
    result["parts"] = {name: {"exit_code": int(code), "seconds": int(seconds)} for name, code, seconds in ended}
    return result


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def table(result: dict) -> list[str]:
    """Return the lines of the printed table."""
    about = result["machine"]
    lines = [f"{about.get('gpu', about.get('cpu'))}, {about.get('cores')} cores, commit {about.get('commit')}"]
    lines.append(f"best matmul {result.get('peak_tflop_per_s')} TFLOP/s")
    for row in result.get("forward", []):
        share = f"{100 * row['share_of_peak']:6.1f} % of the matmul"
        lines.append(f"forward    {row['variant']:11}{row['way']:28}{row['views_per_s']:10.1f} views/s{share}")
    for row in result.get("end_to_end", []):
        projected = f"   HMDB51 in {row['hmdb51_projected_s']:.0f} s" if "hmdb51_projected_s" in row else ""
        lines.append(f"extraction {row['variant']:11}{row['way']:28}{row['clips_per_s']:10.1f} clips/s{projected}")
    for row in result.get("finetune", {}).get("rows", []):
        for way, value in {**row["ways"], "transformers": row["transformers"]}.items():
            memory = "" if value["memory_gib"] is None else f"   {value['memory_gib']:.1f} GiB"
            lines.append(f"fine-tune  {row['train']:11}{way:28}{value['clips_per_s']:10.1f} clips/s{memory}")
    for name, value in result.get("probe", {}).items():
        if isinstance(value, dict):
            seconds = min(value["seconds"])
            lines.append(f"probe grid {name:11}{'ours':28}{seconds:10.1f} s on the CPU's cores")
            for row in value["LogisticRegressionCV"]:
                lines.append(f"probe grid {name:11}{'scikit-learn tol ' + str(row['tol']):28}{row['seconds']:10.1f} s")
    lines.append(f"pytest -m gpu: {result.get('tests', 'not run')}")
    lines.append(f"parts: {result['parts']}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    result = collect(options.parts)
    machine.write(options.out, result)
    print("\n".join(table(result)))


if __name__ == "__main__":
    main()
