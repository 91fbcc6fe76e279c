"""The result of an extraction: counts per variant, busy seconds per stage, and the bottleneck."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from actionvit.pipeline.extraction.encode_queue import StageSeconds


@dataclass(slots=True, kw_only=True)
class Outcome:
    """Counts of one variant; they add up to the number of the dataset's (or shard's) videos."""

    variant: str
    store: Path
    rows: int
    """Videos that have a row now."""
    cached: int
    """Rows that the store had before."""
    embedded: int
    reused: int
    """Rows copied from another id, or another store of the key, with the same content: renamed and moved files. After a
    dry run: rows that would be copied."""
    failed: int
    """Videos without a row, from this run or an earlier one; `failures.csv` in the store's folder names them."""
    pending: int
    """Videos still to embed: after a dry run only."""
    flagged: int
    """Rows of damaged videos whose sampled frames were intact."""
    gmac: float
    """Multiply-adds that one video's views need, in 10⁹."""
    other_keys: list[str]
    """Where the store is new: how the keys of the dataset's other stores of this variant differ from its own."""


@dataclass(slots=True, kw_only=True)
class Summary:
    """Counts and times of an extraction, in seconds; stages overlap."""

    outcomes: list[Outcome]
    videos: int
    workers: int
    stage_seconds: StageSeconds
    seconds: float
    start: float
    """Planning, and loading libraries and weights."""
    decoded: int = 0
    lost: list[str] = field(default_factory=list)
    """Attempts on an engine that ended without a result and were repeated, one line per attempt."""
    failed: int = 0
    """Videos that failed for at least one variant, in this run or an earlier one."""

    @property
    def limit(self) -> tuple[str, float]:
        """The bottleneck, and the fraction of the running time that it was busy."""
        busy = {
            "decoding": self.stage_seconds.decode / max(self.workers, 1),
            "copying": self.stage_seconds.copy,
            "forward pass": self.stage_seconds.prepare + self.stage_seconds.forward,  # one stream or thread does both
            "writing": self.stage_seconds.write,
        }
        name = max(busy, key=lambda stage: busy[stage])
        return name, min(busy[name] / self.loop, 1.0)

    @property
    def loop(self) -> float:
        """Seconds from the first video to the last."""
        return max(self.seconds - self.start, 1e-9)

    @property
    def gmac_per_second(self) -> float:
        """10⁹ multiply-adds per second of the forward pass; 0 if nothing was embedded."""
        done = sum(outcome.gmac * outcome.embedded for outcome in self.outcomes)
        return done / self.stage_seconds.forward if self.stage_seconds.forward else 0.0
