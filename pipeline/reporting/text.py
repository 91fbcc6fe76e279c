"""Numbers and findings in words, the same in every form of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from actionvit.evaluation.comparison import ALPHA
from actionvit.pipeline.reporting.model import Comparison, Duplicates, Interval, Report, Summary
from actionvit.pipeline.runs import on_validation_set
from actionvit.text import abbreviate, pluralize

FEW_SOURCES = 20
"""With fewer sources the interval itself is called uncertain."""

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
"""Metrics that are not fractions, so not written in percent."""

INTERVAL = "95 % confidence interval"
BY_SOURCE = "clustered by source"
"""What every interval of the report takes into account."""


def percent(value: float | None, digits: int = 1) -> str:
    """Return a fraction as `61.9 %`'s number, `61.9`; an en dash for None."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def fraction_text(fraction: float) -> str:
    """Return a fraction in whole percent, for a cell too small for more; `<1` below half a percent."""
    return "<1" if 0 < fraction < 0.005 else f"{100 * fraction:.0f}"


def signed(value: float | None, digits: int = 1) -> str:
    """Return a difference of fractions in percentage points with its sign, `+2.1` or `−0.4`."""
    if value is None:
        return "–"
    text = f"{100 * value:+.{digits}f}"
    return text.replace("-", "−") if float(text) else text[1:]


def signed_metric(name: str, value: float) -> str:
    """Return a difference of a metric with its sign: fractions in points, losses as they are."""
    return signed(value) if name not in NATURAL_UNIT else f"{value:+.3f}".replace("-", "−")


def metric(name: str, value: float | None) -> str:
    """Return a metric's value: fractions in percent, losses as they are."""
    return "–" if value is None else f"{value:.3f}" if name in NATURAL_UNIT else percent(value)


def headline(value: Summary, name: str) -> str:
    """Return a summary as `61.9 ± 2.1 [58.0, 65.5]`."""
    low, high = value.ci95
    spread = "" if value.std is None else f" ± {metric(name, value.std)}"
    return f"{metric(name, value.mean)}{spread} [{metric(name, low)}, {metric(name, high)}]"


def p_value(p: float | None) -> str:
    """Return a p value to two digits, `<0.001` below that."""
    return "–" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def p_equals(p: float, comparisons: int = 1) -> str:
    """Return `p = 0.031`, or `p < 0.001`; of several comparisons, `p = 0.53 after Holm’s correction over 3 ...`."""
    text = p_value(p)
    after = f" after Holm’s correction over {comparisons} comparisons" if comparisons > 1 else ""
    return (f"p {text.replace('<', '< ')}" if text[0] == "<" else f"p = {text}") + after


def from_to(interval: Interval) -> str:
    """Return an interval of differences in points, `−0.4 to +2.1`."""
    return f"{signed(interval[0])} to {signed(interval[1])}"


def is_shown(comparison: Comparison, name: str = "top1") -> bool:
    """Return whether runs differ significantly: corrected p below 0.05 and the interval on one side of zero."""
    delta = comparison.delta[name]
    low, high = delta.ci95
    return delta.p_holm is not None and delta.p_holm < ALPHA and (low > 0 or high < 0)


def verdict(comparison: Comparison, comparisons: int = 1) -> str:
    """Return the conclusion that a paired comparison, one of several, supports."""
    a, b, top1 = comparison.a, comparison.b, comparison.delta["top1"]
    sources = pluralize(comparison.n_sources, "source")
    numbers = f"{signed(top1.value)} points, {INTERVAL} {from_to(top1.ci95)}"
    sample = f"n = {pluralize(comparison.n_clips, 'clip')} from {sources}, {p_equals(comparison.p_holm, comparisons)}"
    if is_shown(comparison):
        better, worse = (b, a) if top1.value > 0 else (a, b)
        sentence = f"{better} is better than {worse}, trained as here, on new videos from new sources: "
        sentence += f"top-1 of {b} minus {a} {numbers} ({sample})."
    else:
        sentence = f"No significant difference in top-1 between {a} and {b}: {b} minus {a} {numbers} ({sample})."
        sentence += f" With this much data, a true difference of {percent(top1.detectable)} points"
        sentence += " would be detected 4 times in 5."
    if comparison.n_sources < FEW_SOURCES:
        sentence += f" With {sources} the interval itself is uncertain."
    return sentence + _other_metric(comparison, comparisons) + _cost(comparison)


def _other_metric(comparison: Comparison, comparisons: int) -> str:
    """Return the finding for mean class accuracy where it differs from that for top-1."""
    delta, shown = comparison.delta["mean_class_accuracy"], is_shown(comparison, "mean_class_accuracy")
    if is_shown(comparison) == shown:
        return ""
    tail = "is significant" if shown else "is not significant"
    return (
        f" The difference in mean class accuracy, {signed(delta.value)} points, {from_to(delta.ci95)}, {tail}"
        f" ({p_equals(1.0 if delta.p_holm is None else delta.p_holm, comparisons)})."
    )


def _cost(comparison: Comparison) -> str:
    """Return the cost of b relative to a; nothing where both cost the same."""
    ratio = comparison.cost_ratio
    if ratio is None or f"{ratio:.3g}" == "1":
        return ""
    sentence = f" {comparison.b} needs {ratio:.3g} times the multiply-adds of {comparison.a}"
    if ratio > 1 and not is_shown(comparison):
        return f"{sentence}, without a demonstrated gain."
    return f"{sentence}."


def overview(comparisons: Sequence[Comparison]) -> str:
    """Return the significant differences among many comparisons in one sentence."""
    shown = [comparison for comparison in comparisons if is_shown(comparison)]
    pairs = [
        (comparison.b, comparison.a) if comparison.delta["top1"].value > 0 else (comparison.a, comparison.b)
        for comparison in shown
    ]
    better = "; ".join(f"{winner} is better than {loser}" for winner, loser in pairs)
    number = f"{len(shown)} of {pluralize(len(comparisons), 'pairwise comparison')}"
    return f"{number} show a significant difference in top-1 after correction{': ' + better if better else ''}."


def tests(comparison: Comparison, comparisons: int) -> str:
    """Return the statistical tests behind a verdict, and the classes that differ significantly or cannot be tested."""
    top1 = comparison.delta["top1"]
    text = f"Corrected t test of top-1, clustered by source: {p_equals(1.0 if top1.p is None else top1.p)}"
    if comparisons > 1:
        text += f"; {p_equals(comparison.p_holm, comparisons)}"
    shown = ", ".join(comparison.classes.shown)
    text += (
        f". Classes that differ significantly after correction: {shown}."
        if shown
        else ". No class differs significantly after correction."
    )
    if untestable := [row.class_ for row in comparison.per_class if row.testable is False]:
        text += f" Too few sources for any difference to be significant: {abbreviate(untestable, quote='')}."
    return text


def duplicate_line(duplicates: Duplicates) -> str:
    """Return how many test clips have a near-duplicate in training, and how near-duplicates were found."""
    rule = "the same file"
    if duplicates.threshold is not None:
        rule += f", or a cosine of {duplicates.threshold:.3f} or more between centered embeddings, which lies outside "
        rule += "the distribution of nearest neighbors of different sources under this encoder"
    else:
        rule += "; this encoder’s embeddings do not distinguish near-duplicates from other clips"
    if not duplicates.clips:
        return f"No test clip has a near-duplicate in the training set of its split ({rule})."
    verb = "has" if duplicates.clips == 1 else "have"
    text = f"{pluralize(duplicates.clips, 'test clip')} {verb} a near-duplicate in the training set of a split "
    return text + f"({pluralize(duplicates.results, 'result')}): {rule}."


def setting(report: Report) -> str:
    """Return dataset, protocol and sizes in one line."""
    first = report.runs[0]
    n, protocol = len(first.splits), protocol_of(first.provenance)
    parts = [(first.provenance.get("dataset") or {}).get("name")]
    parts += [pluralize(n, "split") + (f" ({protocol})" if protocol else "")]
    parts += [pluralize(len(report.class_names), "class", "classes"), pluralize(report.n_clips, "test clip")]
    return " · ".join(part for part in (*parts, pluralize(report.n_sources, "source")) if part)


def protocol_of(provenance: Mapping[str, Any]) -> str:
    """Return the protocol of a run, and the set it was scored on where that is not a test set."""
    protocol = str(provenance.get("protocol") or "")
    return f"{protocol}, scored on the validation set (val)" if on_validation_set(provenance) else protocol


def scored_on(report: Report) -> str:
    """Return a sentence for a table's caption where the runs were not scored on a test set."""
    return " Scored on the validation set (val)." if on_validation_set(report.runs[0].provenance) else ""


def opening(report: Report) -> str:
    """Return the main result of a single run, with the chance level beside it."""
    top1, n = report.runs[0].summary["top1"], len(report.runs[0].splits)
    low, high = (percent(end) for end in top1.ci95)
    text = f"Top-1 {percent(top1.mean)} %, {INTERVAL} {low} to {high}, on {pluralize(report.n_clips, 'test clip')} "
    text += f"from {pluralize(report.n_sources, 'source')}" + (f", mean of {n} splits" if n > 1 else "")
    return f"{text}; chance level {percent(chance(report))} %."


def chance(report: Report) -> float:
    """Return the top-1 accuracy of guessing every class equally often."""
    return 1 / len(report.class_names)


def mixing_line(leaks: Mapping[str, int]) -> str:
    """Return in how many splits sources are in both the training and the test set."""
    most = max(leaks.values())
    text = f"In {pluralize(len(leaks), 'split')} up to {pluralize(most, 'source')} "
    return text + f"{'has' if most == 1 else 'have'} clips in both the training and the test set: results are too high."


def coverage_line(coverage: Mapping[str, Any]) -> str:
    """Return how much of the dataset the results cover."""
    keys = ("cached", "used", "missing", "failed", "flagged")
    numbers = {key: coverage[key] for key in keys if key in coverage}
    if numbers.get("used") == numbers.get("cached"):
        numbers.pop("used", None)
    parts = [f"{number:,} {key}" for key, number in numbers.items()]
    total = f"{pluralize(coverage['videos'], 'video')} listed: " if "videos" in coverage else ""
    return total + ", ".join(parts) if parts else "Coverage not recorded"


def is_complete(coverage: Mapping[str, Any]) -> bool:
    """Return whether no video is missing, failed or flagged."""
    return bool(coverage) and not any(coverage.get(key) for key in ("missing", "failed", "flagged"))


def short_names(names: Sequence[str]) -> list[str]:
    """Return names without the words that all share at their end, then at their start: `base`, `hr`.

    Words are separated by hyphens; every name keeps at least one. The start stays where one short name would otherwise
    be the end of another: of `tiny-linear` and `tiny-hr-linear`, `linear` would not identify the first.
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
