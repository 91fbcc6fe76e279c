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


def headline(value: Mapping[str, Any], name: str) -> str:
    """Return a summary's entry as `61.9 ± 2.1 [58.0, 65.5]`."""
    low, high = value["ci95"]
    spread = "" if value["std"] is None else f" ± {metric(name, value['std'])}"
    return f"{metric(name, value['mean'])}{spread} [{metric(name, low)}, {metric(name, high)}]"


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
        said += f" (n = {clips:,} from {count(sources, 'source')}, p {equals(comparison['p_holm'])})."
    else:
        said = f"No difference between {a} and {b} can be shown with n = {clips:,}: {b} against {a} {numbers}"
        said += f" ({count(sources, 'source')}, p {equals(comparison['p_holm'])})."
    if sources < FEW_SOURCES:
        said += f" With {count(sources, 'source')} the interval itself is uncertain."
    if comparison["cost_ratio"] is not None and f"{comparison['cost_ratio']:.3g}" != "1":
        said += f" {b} takes {comparison['cost_ratio']:.3g} times the multiply-adds of {a}."
    return said


def tests(comparison: Mapping[str, Any], comparisons: int) -> str:
    """Return what the tests behind a verdict say, and of which classes a difference can be shown."""
    said = f"McNemar’s exact test, clip by clip: p {equals(comparison['p_clips'])}. With sources exchanged whole, as "
    said += f"clips of one source go together: p {equals(comparison['p_sources'])}"
    if comparisons > 1:
        said += f", corrected for {comparisons} comparisons {equals(comparison['p_holm'])}"
    shown = ", ".join(comparison["classes"]["shown"])
    return said + (
        f". Classes with a difference after correction: {shown}." if shown else ". For no class can one be shown."
    )


def leak_line(leaks: Mapping[str, Any]) -> str:
    """Return how many test clips resemble a training clip too much."""
    if not leaks["clips"]:
        return "No test clip has a near-duplicate among the training clips of its split."
    verb = "has" if leaks["clips"] == 1 else "have"
    said = f"{count(leaks['clips'], 'test clip')} {verb} a near-duplicate among the training clips of a split "
    said += f"({count(leaks['results'], 'result')}): the same file, or a cosine of {leaks['alike']:g} or more between "
    return said + "centred embeddings."


def opening(found: Mapping[str, Any]) -> str:
    """Return the main number of a single run."""
    top1 = found["runs"][0]["summary"]["top1"]
    low, high = (percent(end) for end in top1["ci95"])
    n = len(found["runs"][0]["splits"])
    said = (
        f"Top-1 {percent(top1['mean'])} %, 95 % interval {low} to {high}, over {count(found['n_clips'], 'test clip')} "
    )
    return said + f"from {count(found['n_sources'], 'source')}" + (f", mean of {n} splits." if n > 1 else ".")


def coverage_line(coverage: Mapping[str, Any]) -> str:
    """Return how much of the dataset the numbers rest on."""
    parts = [f"{coverage[key]:,} {key}" for key in ("cached", "missing", "failed", "flagged") if key in coverage]
    total = f"{count(coverage['videos'], 'video')} listed: " if "videos" in coverage else ""
    return total + ", ".join(parts) if parts else "coverage not recorded"


def is_complete(coverage: Mapping[str, Any]) -> bool:
    """Return whether nothing is missing, failed or flagged."""
    return bool(coverage) and not any(coverage.get(key) for key in ("missing", "failed", "flagged"))


def short_names(names: Sequence[str]) -> list[str]:
    """Return names without the words at their end, then at their start, that all share: `base`, `hr`.

    Words are what stands between hyphens; no name loses all of its own.
    """
    words = [name.split("-") for name in names]
    for end in (-1, 0):
        while len(words) > 1 and min(map(len, words)) > 1 and len({word[end] for word in words}) == 1:
            for word in words:
                del word[end]
    return ["-".join(word) for word in words]


def listing(names: Sequence[str], most: int = 3) -> str:
    """Return the first few names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def equals(p: float) -> str:
    """Return `= 0.031`, or `< 0.001`."""
    text = p_value(p)
    return text.replace("<", "< ") if text[0] == "<" else f"= {text}"
