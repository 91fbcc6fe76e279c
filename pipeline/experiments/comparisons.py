"""The experiments: probes that differ in head, class weighting, training clips or split, as tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from actionvit.heads.saving import HeadName
from actionvit.pipeline.datasets.dataset import Dataset
from actionvit.pipeline.datasets.splits import default_protocol, with_protocol
from actionvit.pipeline.experiments.differences import Metric, differences, findings
from actionvit.pipeline.experiments.grids import (
    STRATEGIES,
    Cell,
    Row,
    heads_cells,
    imbalance_cells,
    protocol_of,
    row_of,
    run_cells,
    splits_cells,
    thirds_of,
    unevenness_of,
)
from actionvit.pipeline.experiments.sharding import shard_row
from actionvit.pipeline.experiments.tables import WrittenTable, curves_figure, histograms_figure, write_table
from actionvit.pipeline.probing.features import tables_of
from actionvit.pipeline.probing.spec import ProbeSpec, features_of
from actionvit.pipeline.runs import Run, training_sizes
from actionvit.text import pluralize

if TYPE_CHECKING:
    from actionvit.features.store.store import FeatureStore

CLIPS_AXES = ("training clips per class", "top-1, %")


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """Probes of one dataset and store, and the folder that their table is written to."""

    dataset: Dataset
    store: FeatureStore
    folder: Path
    base: ProbeSpec
    """Settings that the probes share."""
    jobs: int = 2
    command: Sequence[str] = ()
    """The command line, for the table's provenance."""
    on_head: Callable[[int, int], None] = lambda done, total: None
    """Called with (probes done, probes to do)."""

    def compare_heads(self, heads: Sequence[HeadName], shots: Sequence[int]) -> list[WrittenTable]:
        """Compare heads × class weightings × training clips per class; write and return the table."""
        cells = heads_cells(self.base, heads=heads, strategies=tuple(STRATEGIES), shots=shots)
        rows, lines = self._run(cells, row_of, "top1")
        self._draw_curve(
            [row for row in rows if row["shots"] != "all"]
            + [self._at_mean_shots(row) for row in rows if row["shots"] == "all" and row["weighting"] == "none"]
        )
        return [self._write("heads", rows, "Heads, weightings and training clips per class.", lines)]

    def learning_curve(self, head: HeadName, shots: Sequence[int]) -> list[WrittenTable]:
        """Measure accuracy against training clips per class; write and return the table."""
        cells = heads_cells(self.base, heads=(head,), strategies=("none",), shots=shots)
        rows, _ = self._run(cells, row_of)
        self._draw_curve([self._at_mean_shots(row) for row in rows])
        return [self._write("shots", rows, f"The head `{head}` with few training clips per class.")]

    def compare_weightings(self, head: HeadName, factors: Sequence[float]) -> list[WrittenTable]:
        """Compare class weighting, sampling and logit adjustment under long tails; write and return the table."""
        base = replace(self.base, head=head, features=features_of(head))
        cells = imbalance_cells(base, factors=factors, strategies=tuple(STRATEGIES))
        rows, lines = self._run(
            cells, lambda cell, run: {**row_of(cell, run), **thirds_of(self.dataset, run)}, "mean_class_accuracy"
        )
        for column in ("head", "middle", "tail", "mean_class_accuracy"):
            shown = [row for row in rows if column in row]  # a third of a few classes may have no test clip
            if shown:
                name = column.replace("_", " ") + (" classes" if column != "mean_class_accuracy" else "")
                axes = ("largest class : smallest class", f"{name}, %")
                file = self.folder / f"{column}.png"
                curves_figure(shown, file, x="factor", y=column, series="weighting", names=axes)
        caption = (
            f"The head `{head}` under long tails: accuracy on the third of classes with most, middling and fewest"
            " training clips; test sets are unchanged."
        )
        return [self._write("imbalance", rows, caption, lines)]

    def compare_splits(self, head: HeadName, shards: int) -> list[WrittenTable]:
        """Compare split protocols and the class mix of data-parallel shards; write and return both tables."""
        base = replace(self.base, head=head, features=features_of(head), protocol=None)
        rows, _ = self._run(
            splits_cells(self.dataset, base), lambda cell, run: {**row_of(cell, run), **unevenness_of(run)}
        )
        protocols = self._write("splits", rows, "One head under every protocol; leaking sources raise its accuracy.")
        (table,) = tables_of(self.dataset, [self.store], base.features)
        spec = with_protocol(replace(base, seeds=1), self.base.protocol or default_protocol(self.dataset))
        results = [
            shard_row(self.dataset, table, spec, shards=shards, how=how)
            for how in ("contiguous", "hashed", "stratified")
        ]
        histograms = {row["sharding"]: counts.tolist() for row, counts in results}
        names = self.dataset.class_names
        sharded = write_table(
            self.folder,
            "shards",
            [row for row, _ in results],
            caption=f"{shards} workers that each see one shard of the training set.",
            about={**self._about, "class_names": list(names), "histograms": histograms},
        )
        histograms_figure(histograms, self.folder / "shards.png", class_names=names)
        return [protocols, sharded]

    @property
    def _about(self) -> dict[str, object]:
        return {"dataset": self.dataset.name, "command": list(self.command)}

    def _at_mean_shots(self, row: Row) -> Row:
        return {**row, "shots": row["train"] / len(self.dataset.class_names)}

    def _draw_curve(self, rows: Sequence[Row]) -> None:
        curves_figure(rows, self.folder / "curves.png", x="shots", y="top1", series="head", names=CLIPS_AXES)

    def _run(
        self, cells: Sequence[Cell], make_row: Callable[[Cell, Run], Row], compared: Metric | None = None
    ) -> tuple[list[Row], list[str]]:
        """Probe the cells; return the rows, compared by a metric if given, and the findings."""
        rows, predicted = [], []
        for cell, run in run_cells(
            self.dataset,
            cells,
            store=self.store,
            runs=self.folder / "runs",
            jobs=self.jobs,
            on_head=self.on_head,
        ):
            rows.append(make_row(cell, run))
            predicted.append((cell.labels, run.predictions, training_sizes(run.metrics)))
        if compared is None:
            return rows, []
        compared_rows = differences(predicted, metric=compared)
        for difference in compared_rows:
            rows[difference.row] = {**rows[difference.row], **difference.columns}
        return rows, findings(compared_rows)

    def _write(self, name: str, rows: Sequence[Row], caption: str, lines: Sequence[str] = ()) -> WrittenTable:
        protocol = protocol_of(self.dataset, self.base) if name != "splits" else "several"
        full = (
            f"{caption} {self.dataset.name}, {self.store.variant}, protocol {protocol},"
            f" {pluralize(self.base.seeds or 1, 'seed')}."
            " Percent: mean ± standard deviation between splits [95 % interval clustered by source]."
        )
        if lines:
            full += (
                " Δ: points, paired by clip with the row of the setting in `against`, all else equal. p: corrected t"
                " test, Holm's correction over the table."
            )
        return write_table(self.folder, name, rows, caption=full, about=self._about, findings=lines)
