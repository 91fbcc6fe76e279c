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


PALETTE_SIZE = 6
"""Colours there are for runs; a seventh run takes the first one's."""


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share as `61.9 %`'s number, `61.9`; an en dash where there is none."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def share_text(share: float) -> str:
    """Return a share in whole percent, for a square too small for more; `<1` where there is less than half a one."""
    return "<1" if 0 < share < 0.005 else f"{100 * share:.0f}"


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
    sources = count(comparison["n_sources"], "source")
    numbers = f"{signed(top1['value'])} points top-1, 95 % interval {signed(low)} to {signed(high)}"
    if is_shown(comparison):
        better, worse = (b, a) if low > 0 else (a, b)
        said = f"{better} is better than {worse} on these clips: {b} against {a} {numbers}"
        said += f" (n = {comparison['n_clips']:,} from {sources}, p {equals(comparison['p_holm'])})."
    else:
        said = f"No difference in top-1 between {a} and {b} can be shown with n = {comparison['n_clips']:,}: "
        said += f"{b} against {a} {numbers} ({sources}, p {equals(comparison['p_holm'])})."
    if comparison["n_sources"] < FEW_SOURCES:
        said += f" With {sources} the interval itself is uncertain."
    return said + _other_metric(comparison) + _cost(comparison)


def _other_metric(comparison: Mapping[str, Any]) -> str:
    """Return what mean class accuracy says, where it says something else than top-1."""
    low, high = comparison["delta"]["mean_class_accuracy"]["ci95"]
    if is_shown(comparison) == (low > 0 or high < 0):
        return ""
    tail = "leaves zero out; no test was made of it." if low > 0 or high < 0 else "holds zero."
    return f" The interval of the difference in mean class accuracy, {signed(low)} to {signed(high)} points, {tail}"


def _cost(comparison: Mapping[str, Any]) -> str:
    """Return what the second run takes, and what it brings for that; nothing where both take the same."""
    ratio = comparison["cost_ratio"]
    if ratio is None or f"{ratio:.3g}" == "1":
        return ""
    said = f" {comparison['b']} takes {ratio:.3g} times the multiply-adds of {comparison['a']}"
    if ratio < 1:
        return f"{said}."
    if not is_shown(comparison):
        return f"{said}, and nothing shows that it pays."
    low, high = comparison["delta"]["top1"]["ci95"]
    return f"{said}; that is the price of {signed(low)} to {signed(high)} points." if low > 0 else f"{said}."


def tests(comparison: Mapping[str, Any], comparisons: int) -> str:
    """Return what the tests behind a verdict say, and of which classes a difference can be shown."""
    said = f"McNemar’s exact test, clip by clip: p {equals(comparison['p_clips'])}. With sources exchanged whole, as "
    said += f"clips of one source go together: p {equals(comparison['p_sources'])}"
    if comparisons > 1:
        said += f", and corrected for {comparisons} comparisons p {equals(comparison['p_holm'])}"
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


def setting(found: Mapping[str, Any]) -> str:
    """Return what was tested, in one line."""
    first = found["runs"][0]["provenance"]
    n, protocol = len(found["runs"][0]["splits"]), first.get("protocol")
    parts = [(first.get("dataset") or {}).get("name"), count(n, "split") + (f" ({protocol})" if protocol else "")]
    parts += [count(len(found["class_names"]), "class", "classes"), count(found["n_clips"], "test clip")]
    return " · ".join(part for part in (*parts, count(found["n_sources"], "source")) if part)


def opening(found: Mapping[str, Any]) -> str:
    """Return the main number of a single run."""
    top1 = found["runs"][0]["summary"]["top1"]
    low, high = (percent(end) for end in top1["ci95"])
    n = len(found["runs"][0]["splits"])
    said = (
        f"Top-1 {percent(top1['mean'])} %, 95 % interval {low} to {high}, over {count(found['n_clips'], 'test clip')} "
    )
    return said + f"from {count(found['n_sources'], 'source')}" + (f", mean of {n} splits." if n > 1 else ".")


def mixing_line(leaks: Mapping[str, int]) -> str:
    """Return in how many splits how many sources stand on both sides."""
    most = max(leaks.values())
    said = f"In {count(len(leaks), 'split')} up to {count(most, 'source')} "
    return said + f"{'has' if most == 1 else 'have'} clips on both sides: these numbers are too high."


def coverage_line(coverage: Mapping[str, Any]) -> str:
    """Return how much of the dataset the numbers rest on."""
    keys = ("cached", "used", "missing", "failed", "flagged")
    known = {key: coverage[key] for key in keys if key in coverage}
    if known.get("used") == known.get("cached"):
        known.pop("used", None)
    parts = [f"{number:,} {key}" for key, number in known.items()]
    total = f"{count(coverage['videos'], 'video')} listed: " if "videos" in coverage else ""
    return total + ", ".join(parts) if parts else "coverage not recorded"


def is_complete(coverage: Mapping[str, Any]) -> bool:
    """Return whether nothing is missing, failed or flagged."""
    return bool(coverage) and not any(coverage.get(key) for key in ("missing", "failed", "flagged"))


def short_names(names: Sequence[str]) -> list[str]:
    """Return names without the words at their end, then at their start, that all share: `base`, `hr`.

    Words are what stands between hyphens; no name loses all of its own. The start is kept where one short name would be
    the end of another: of `tiny-linear` and `tiny-hr-linear` the first is not just any `linear`.
    """
    words = [name.split("-") for name in names]
    if len(words) < 2:
        return list(names)
    while min(map(len, words)) > 1 and len({word[-1] for word in words}) == 1:
        words = [word[:-1] for word in words]
    shorter = words
    while min(map(len, shorter)) > 1 and len({word[0] for word in shorter}) == 1:
        shorter = [word[1:] for word in shorter]
    clear = not any(a != b and a == b[-len(a) :] for a in shorter for b in shorter)
    return ["-".join(word) for word in (shorter if clear else words)]


def listing(names: Sequence[str], most: int = 3) -> str:
    """Return the first few names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def equals(p: float) -> str:
    """Return `= 0.031`, or `< 0.001`."""
    text = p_value(p)
    return text.replace("<", "< ") if text[0] == "<" else f"= {text}"
