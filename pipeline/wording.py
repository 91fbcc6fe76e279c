"""Numbers and findings in words, the same in every form of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ALPHA = 0.05
"""A p value below this, together with an interval off zero, is called a difference."""

FEW_SOURCES = 20
"""Below this many sources an interval is called uncertain itself."""

METRIC_TITLES = {
    "top1": "Top-1",
    "top5": "Top-5",
    "mean_class_accuracy": "Mean class accuracy",
    "macro_f1": "Macro F1",
    "ece": "ECE",
    "log_loss": "Log loss",
    "brier": "Brier",
}
NATURAL_UNIT = ("log_loss", "brier")
"""Metrics that are no share, so not written in percent."""


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share as `61.9 %`'s number, `61.9`; an en dash where there is none."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def signed(value: float | None, digits: int = 1) -> str:
    """Return a difference of shares in points with its sign, `+2.1` or `−0.4`."""
    if value is None:
        return "–"
    text = f"{100 * value:+.{digits}f}"
    return text.replace("-", "−") if float(text) else text[1:]


def metric(name: str, value: float | None) -> str:
    """Return a metric's value: shares in percent, losses as they are."""
    return "–" if value is None else f"{value:.3f}" if name in NATURAL_UNIT else percent(value)


def p_value(p: float | None) -> str:
    """Return a p value to two digits, `<0.001` where it is less."""
    return "–" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def count(n: int, noun: str, plural: str = "") -> str:
    """Return `1 clip`, `1,530 clips`."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def seconds(value: float | None) -> str:
    """Return a duration a person can read."""
    if value is None:
        return "–"
    if value < 120:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def is_shown(comparison: Mapping[str, Any], name: str = "top1") -> bool:
    """Return whether a comparison shows a difference: corrected p below 0.05 and the interval on one side of zero."""
    low, high = comparison["delta"][name]["ci95"]
    return bool(comparison["p_holm"] < ALPHA and (low > 0 or high < 0))


def verdict(comparison: Mapping[str, Any]) -> str:
    """Return what a paired comparison allows one to say, no more."""
    a, b = comparison["a"], comparison["b"]
    top1 = comparison["delta"]["top1"]
    low, high = top1["ci95"]
    clips, sources = comparison["n_clips"], comparison["n_sources"]
    numbers = f"{signed(top1['value'])} points top-1, 95 % interval {signed(low)} to {signed(high)}"
    if is_shown(comparison):
        better, worse = (b, a) if low > 0 else (a, b)
        said = f"{better} is better than {worse} on these clips: {b} against {a} {numbers}"
        said += f" (n = {clips:,} from {count(sources, 'source')}, p {_equals(comparison['p_holm'])})."
    else:
        said = f"No difference between {a} and {b} can be shown with n = {clips:,}: {b} against {a} {numbers}"
        said += f" ({count(sources, 'source')}, p {_equals(comparison['p_holm'])})."
    if sources < FEW_SOURCES:
        said += f" With {count(sources, 'source')} the interval itself is uncertain."
    if comparison["cost_ratio"] is not None:
        said += f" {b} takes {comparison['cost_ratio']:.3g} times the multiply-adds of {a}."
    return said


def coverage_line(coverage: Mapping[str, Any]) -> str:
    """Return how much of the dataset the numbers rest on."""
    parts = [f"{coverage[key]:,} {key}" for key in ("cached", "missing", "failed", "flagged") if key in coverage]
    total = f"{count(coverage['videos'], 'video')} listed: " if "videos" in coverage else ""
    return total + ", ".join(parts) if parts else "coverage not recorded"


def is_complete(coverage: Mapping[str, Any]) -> bool:
    """Return whether nothing is missing, failed or flagged."""
    return bool(coverage) and not any(coverage.get(key) for key in ("missing", "failed", "flagged"))


def listing(names: Sequence[str], most: int = 3) -> str:
    """Return the first few names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def _equals(p: float) -> str:
    text = p_value(p)
    return text.replace("<", "< ") if text[0] == "<" else f"= {text}"
